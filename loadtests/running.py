"""Processes started for a measurement: always ended again, by their own pid."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

START_WITHIN_S: Final = 20.0
END_WITHIN_S: Final = 10.0
# Asked directly, whatever proxy the environment names.
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class StartError(RuntimeError):
    """A process did not come up: it ended, or did not answer in time. Holds the end of what it said."""


PORTS: Final = range(31000, 32768)
"""Below those that Linux gives out by itself, and above those that the tests reserve."""

_reserved: list[socket.socket] = []


def reserve(ports: range, *beside: int) -> socket.socket | None:
    """A port for a server in a process of its own, until the socket is closed; None: all of them are taken.

    Nobody listens on it, nor on those so far `beside` it. The socket is a UDP one, so that TCP is free for
    the server; who reserves ports in this way, in whichever process, never gets the same.
    """
    for port in random.sample(ports, len(ports)):
        held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            held.bind(("127.0.0.1", port))
            for away in (0, *beside):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port + away))
        except OSError:
            held.close()
        else:
            return held
    return None


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now.

    The system gives it to nobody, and no other process that asks here gets it while this one lives. When all
    are taken, any that the system gives out.
    """
    if (held := reserve(PORTS)) is not None:
        _reserved.append(held)
        return int(held.getsockname()[1])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pinned(command: Sequence[str], cores: str | None) -> list[str]:
    """The command, kept to these cores (`0`, `1-3`) by taskset; as it is when `cores` is None."""
    return [*(["taskset", "--cpu-list", cores] if cores else []), *command]


@contextmanager
def running(name: str, command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process whose output goes to `folder/name.log`; end it on the way out, whatever happened.

    It has a session of its own, so a Ctrl-C reaches it only through us, after its figures were read.
    """
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield process
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, and kill it when it has not after `END_WITHIN_S`."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def await_port(
    process: subprocess.Popen[bytes], port: int, log: Path, within_s: float = START_WITHIN_S
) -> None:
    """Return once the process accepts connections on the port; StartError when it ends or takes too long."""
    give_up_at = time.monotonic() + within_s
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    words = log.read_text(errors="replace").strip().splitlines()[-8:]
    ended = "still running" if process.poll() is None else f"ended with status {process.returncode}"
    raise StartError(f"{log.stem} does not listen on port {port} ({ended}): " + "\n".join(words))


def said(log: Path) -> str:
    """The end of what a process said, to be told with what went wrong."""
    return log.read_text(errors="replace")[-2000:]


def fetch(url: str, body: bytes | None = None) -> bytes:
    """The body of a successful answer; urllib.error.URLError otherwise. POST when there is a body."""
    asked = urllib.request.Request(url, data=body, headers={"content-type": "application/json"})
    with _DIRECT.open(asked, timeout=5) as answer:
        content: bytes = answer.read()
        return content


@contextmanager
def first_on_its_core(pid: int) -> Iterator[bool]:
    """For a while a process goes before all others on its core (SCHED_FIFO). False where that is not allowed.

    On a shared machine the kernel's own threads take a core for milliseconds at a time else. Only for what
    leaves its core idle now and then: what never does is stopped for the others' sake, 50 ms of each second.
    """
    try:
        _schedule(pid, os.SCHED_FIFO, 1)
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        _schedule(pid, os.SCHED_OTHER, 0)


def _schedule(pid: int, policy: int, priority: int) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setscheduler(int(thread.name), policy, os.sched_param(priority))


def cpu_s(pid: int) -> float:
    """User and system CPU seconds a process and its threads have used so far (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_kib(pid: int) -> dict[str, int]:
    """The memory of a process by the kernel's names for its kinds (proc(5), smaps_rollup), in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


def end_on_sigterm() -> None:
    """Let SIGTERM leave by SystemExit, as Ctrl-C does by KeyboardInterrupt: what runs is ended on the way.

    Ctrl-C too is set: a shell has its background jobs ignore it, and Python then leaves it at that.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, signal.default_int_handler)
