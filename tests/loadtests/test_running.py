"""Processes of a measurement end with it, by their own pid, whatever happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.running import (
    StartError,
    await_port,
    cpu_s,
    fetch,
    first_on_its_core,
    free_port,
    running,
)

ROOT = Path(__file__).parents[2]
WAITS = [sys.executable, "-c", "import signal; signal.pause()"]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_process_is_ended_when_its_block_is_left(tmp_path: Path) -> None:
    with running("waits", WAITS, tmp_path) as process:
        assert process.poll() is None
    assert process.returncode == -signal.SIGTERM


@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_a_process_is_ended_when_its_block_is_left_by_an_exception(
    leaving: type[BaseException], tmp_path: Path
) -> None:
    with pytest.raises(leaving), running("waits", WAITS, tmp_path) as process:
        raise leaving
    assert process.returncode == -signal.SIGTERM


def test_a_process_that_does_not_listen_to_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadtests.running.END_WITHIN_S", 0.05)
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    deaf = f"""
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open({str(ready)!r}, "w").close()
signal.pause()
"""
    with running("deaf", [sys.executable, "-c", deaf], tmp_path) as process:
        ready.read_text()  # returns once the process has opened and closed it
    assert process.returncode == -signal.SIGKILL


def test_a_process_that_ended_by_itself_is_left_alone(tmp_path: Path) -> None:
    with running("ends", [sys.executable, "-c", "print('said')"], tmp_path) as process:
        process.wait()
    assert process.returncode == 0
    assert (tmp_path / "ends.log").read_text() == "said\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_measurement_ends_what_it_started(number: int, tmp_path: Path) -> None:
    measurement = f"""
from pathlib import Path
from loadtests.program import finish
from loadtests.running import running
import signal
def main():
    with running("waits", {WAITS!r}, Path({str(tmp_path)!r})) as process:
        print(process.pid, flush=True)
        signal.pause()
finish(main)
"""
    command = [sys.executable, "-c", measurement]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as outer:
        assert outer.stdout is not None
        inner = int(outer.stdout.readline())
        assert is_alive(inner)
        outer.send_signal(number)
    assert outer.returncode == 128 + number
    assert not is_alive(inner)


def test_a_measurement_that_did_not_start_says_why_and_fails() -> None:
    code = """
from loadtests.program import finish
from loadtests.running import StartError
def main():
    raise StartError("no such upstream")
finish(main)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "no such upstream\n")


def test_a_process_that_ends_instead_of_listening_is_reported_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such upstream')"]
    said = pytest.raises(StartError, match=r"(?s)proxy does not listen .*status 1.*no such upstream")
    with running("proxy", command, tmp_path) as process, said:
        await_port(process, free_port(), tmp_path / "proxy.log")


def test_a_process_that_never_listens_is_given_up(tmp_path: Path) -> None:
    with running("waits", WAITS, tmp_path) as process, pytest.raises(StartError, match="still running"):
        await_port(process, free_port(), tmp_path / "waits.log", within_s=0.1)


def test_a_process_is_ready_when_it_accepts_connections(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "loadtests.origin", str(port)]
    with running("origin", command, tmp_path) as process:
        await_port(process, port, tmp_path / "origin.log")
        assert b"chat.completion" in fetch(f"http://127.0.0.1:{port}/", b"{}")


def test_the_cpu_of_a_process_is_read_in_seconds() -> None:
    before = cpu_s(os.getpid())
    spent = os.times()
    assert before == pytest.approx(spent.user + spent.system, abs=0.05)


def test_a_process_goes_first_on_its_core_for_a_while_where_it_may(tmp_path: Path) -> None:
    with running("waits", WAITS, tmp_path) as process:
        with first_on_its_core(process.pid) as may:
            assert os.sched_getscheduler(process.pid) == (os.SCHED_FIFO if may else os.SCHED_OTHER)
        assert os.sched_getscheduler(process.pid) == os.SCHED_OTHER
        process.terminate()
        process.wait()
        with pytest.raises(FileNotFoundError), first_on_its_core(process.pid):
            pass


def test_where_nobody_may_go_first_the_measurement_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    with running("waits", WAITS, tmp_path) as process:
        monkeypatch.setattr(os, "sched_setscheduler", refuse)
        with first_on_its_core(process.pid) as may:
            assert not may
