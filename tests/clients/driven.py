"""A driver while it runs: asks go in, and what its client made of them comes out (`drivers/driving.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

READY_S = 90.0
"""A client's imports on a busy machine."""

ANSWERED_S = 400.0
"""Of the agents in a terminal two run at once; the others wait for their turn."""

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR")
"""Of our environment: no key, no proxy, no setting of a developer's own client."""


class Driver:
    """One client's process. `client` is its name and version."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.client = ""
        self.ready = asyncio.Event()

    async def ask(
        self, base: str, ask: str, *, patient: bool = True, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """One ask, and what came of it. Raises TimeoutError, and EOFError where the driver died."""
        number = len(self._asked) + 1
        self._asked[number] = asyncio.get_running_loop().create_future()
        line = {"id": number, "base": base, "ask": ask, "patient": patient, "headers": headers or {}}
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        async with asyncio.timeout(ANSWERED_S):
            return await self._asked[number]

    async def listen(self) -> None:
        """Hand out its lines until it ends."""
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            if "client" in said:
                self.client = said["client"]
                self.ready.set()
            else:
                self._asked[said.pop("id")].set_result(said)
        self.ready.set()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(EOFError("the driver has ended"))


@contextlib.asynccontextmanager
async def driving(command: Sequence[str | Path], **env: str) -> AsyncIterator[Driver]:
    """Run a driver in a home of its own; it and what it started are killed at the end of the block.

    Raises EOFError with what it wrote to its standard error where it does not start.
    """
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home,
        (Path(home) / "stderr").open("w+") as stderr,
    ):
        shared = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env={**shared, "HOME": home, **env},
            cwd=home,
            start_new_session=True,
        )
        driver = Driver(process)
        listening = asyncio.create_task(driver.listen())
        try:
            async with asyncio.timeout(READY_S):
                await driver.ready.wait()
            if not driver.client:
                stderr.seek(0)
                raise EOFError(stderr.read())
            yield driver
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            await listening
