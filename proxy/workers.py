"""Several workers behind one port, `serve --workers N`: a parent that starts, watches and ends them.

Each worker is a whole proxy in a process of its own, and listens on the data port with SO_REUSEPORT: the
kernel deals new connections out by their hash. One inherited socket would be simpler, but with epoll the
worker that asked last is woken first and keeps most of the long-lived connections that agents open. Each
worker has a control plane of its own, on `admin.listen`'s port and those that follow: counts are told by who
counts.

A worker that dies is replaced, later and later when it keeps dying. One that cannot start at the beginning
ends everything: the configuration or the machine is at fault, and a restart would hide it. SIGTERM, SIGINT
and SIGHUP go to every worker; without its parent a worker drains and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Final

import uvloop

from proxy.server import CannotListen, Place, Started, listening, run
from proxy.settings import Settings
from proxy.settings.words import Address
from proxy.telemetry import Log

FIRST_PAUSE_S: Final = 0.1
"""Before a worker that died is replaced. Precedent: systemd's RestartSec=100ms."""
LONGEST_PAUSE_S: Final = 10.0
STEADY_S: Final = 30.0
"""A worker that lived this long died of something new: its successor starts without delay again."""

_SPAWN: Final = multiprocessing.get_context("spawn")


class WorkerFailed(Exception):
    """A worker did not start. It has said why itself; `code` is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a worker did not start (exit code {code})")
        self.code = code


def pause_s(lives_s: list[float]) -> float:
    """How long to wait before a worker is replaced whose predecessors lived so long, the last one last."""
    deaths = 0
    for lived_s in reversed(lives_s):
        if lived_s >= STEADY_S:
            break
        deaths += 1
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(deaths - 1, 16)) if deaths else 0.0


@dataclass(frozen=True, slots=True)
class Serving:
    """All workers have started: where agents reach them, and where each one's control plane is."""

    data: Address
    controls: tuple[Address, ...]


async def supervise(
    settings: Settings, path: Path | None, workers: int, started: Callable[[Serving], None]
) -> int:
    """Run `workers` of them until a signal says stop. The exit code: 0 when each ended well.

    Raises CannotListen, and WorkerFailed before all have started.
    """
    with reserved(settings.listen) as data:
        parent = _Parent(settings, path, workers, data)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, parent.stop)
        loop.add_signal_handler(signal.SIGHUP, parent.forward, signal.SIGHUP)
        return await parent.run(started)


@contextlib.contextmanager
def reserved(address: Address) -> Iterator[Address]:
    """Hold the data port for the workers, bound but not listening; port 0 becomes a real one.

    Raises CannotListen, also when another program shares its port: its connections would be dealt out to
    ours.
    """
    with listening(address, "listen") as alone:
        host, port = alone.getsockname()[:2]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
        yield Address(host, port)


class _Parent:
    def __init__(self, settings: Settings, path: Path | None, workers: int, data: Address) -> None:
        self._settings = settings
        self._path = path
        self._data = data
        self._slots = [_Slot(number) for number in range(workers)]
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Pass the wish on: the first drains, the second ends at once."""
        self._stopping.set()
        self.forward(signal.SIGTERM)

    def forward(self, number: signal.Signals) -> None:
        for slot in self._slots:
            process = slot.process
            if process is not None and process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)

    async def run(self, started: Callable[[Serving], None]) -> int:
        try:
            begun = [asyncio.create_task(self._start(slot)) for slot in self._slots]
            controls = await asyncio.gather(*begun)
            if None in controls and not self._stopping.is_set():
                raise WorkerFailed(max(slot.code for slot in self._slots))
            if not self._stopping.is_set():
                started(Serving(self._data, tuple(each for each in controls if each is not None)))
            async with asyncio.TaskGroup() as kept:
                for slot in self._slots:
                    kept.create_task(self._keep(slot))
        finally:
            self.forward(signal.SIGTERM)
            for slot in self._slots:
                if slot.process is not None:
                    await _ended(slot.process)
        return int(any(slot.code not in (0, -signal.SIGTERM) for slot in self._slots))

    async def _start(self, slot: _Slot) -> Address | None:
        """Start one worker: its control plane's address, or None when it ended before it had one."""
        ours, theirs = _SPAWN.Pipe(duplex=False)
        admin = self._settings.admin.listen
        control = Address(admin.host, admin.port + slot.number if admin.port else 0)
        place = Place(self._data, control)
        slot.process = _SPAWN.Process(
            target=_work, args=(self._settings, self._path, place, theirs), name=f"worker {slot.number}"
        )
        slot.begun_at = asyncio.get_running_loop().time()
        slot.process.start()
        theirs.close()
        try:
            await _readable(ours.fileno())
            if self._stopping.is_set() and slot.process.pid is not None:
                os.kill(slot.process.pid, signal.SIGTERM)  # it was not there yet when the others were told
            address: Address = ours.recv()
        except EOFError:
            slot.code = await _ended(slot.process)
            return None
        else:
            return address
        finally:
            ours.close()

    async def _keep(self, slot: _Slot) -> None:
        """Replace the worker whenever it ends, until all are to stop."""
        lives_s: list[float] = []
        while slot.process is not None:
            slot.code = await _ended(slot.process)
            if self._stopping.is_set():
                return
            lives_s = [*lives_s, asyncio.get_running_loop().time() - slot.begun_at][-20:]
            wait_s = pause_s(lives_s)
            sys.stderr.write(
                f"worker {slot.number} ended with code {slot.code}; the next starts in {wait_s:g}s\n"
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_s)
            if self._stopping.is_set():
                return
            await self._start(slot)


class _Slot:
    """The place of one worker and its successors."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: SpawnProcess | None = None
        self.begun_at = 0.0
        self.code = 0


async def _ended(process: SpawnProcess) -> int:
    await _readable(process.sentinel)
    process.join()
    return process.exitcode or 0  # negative: the signal that ended it


async def _readable(descriptor: int) -> None:
    """Wait until there is something to read, or the end."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    copy = os.dup(descriptor)  # a loop watches a descriptor once, and two may wait for one worker
    loop.add_reader(copy, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(copy)
        os.close(copy)


def _work(settings: Settings, path: Path | None, place: Place, tell: Connection) -> None:
    """A worker's whole life, in its own process."""
    os.setpgrp()  # Ctrl-C goes to a whole group, and two signals would end this one without draining

    def started(running: Started) -> None:
        tell.send(running.control)
        tell.close()

    async def serve() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            asyncio.get_running_loop().add_reader(parent.sentinel, _orphaned, parent.sentinel)
        await run(settings, path, Log(), started, place)

    try:
        uvloop.run(serve())
    except CannotListen as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


def _orphaned(sentinel: int) -> None:
    asyncio.get_running_loop().remove_reader(sentinel)
    os.kill(os.getpid(), signal.SIGTERM)
