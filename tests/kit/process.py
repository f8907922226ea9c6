"""The proxy as a user runs it: a process of its own, known by what it prints."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from tests.kit.ports import ANY_PORTS

BOUND_S = 30
"""No wait in a test is longer; a healthy one ends within a fraction of a second."""

COMMAND = (sys.executable, "-c", "from proxy.cli import main; main()")


class Process:
    """A running `backpressure` and the lines it has logged."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[dict[str, Any]] = []
        self.text: list[str] = []

    async def until(self, event: str) -> dict[str, Any]:
        """Read the log up to the next line of this event, and return it."""
        async with asyncio.timeout(BOUND_S):
            while True:
                raw = await self._process.stdout.readline()
                assert raw, f"ended without {event}: {self.text} {await self._process.stderr.read()}"
                line = raw.decode().rstrip("\n")
                self.text.append(line)
                if line.startswith("{"):
                    self.lines.append(json.loads(line))
                    if self.lines[-1]["event"] == event:
                        return self.lines[-1]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> tuple[int, str]:
        """Its exit code and what it wrote to standard error."""
        async with asyncio.timeout(BOUND_S):
            out, err = await self._process.communicate()
        self.text += out.decode().splitlines()
        return self._process.returncode, err.decode()


@contextlib.asynccontextmanager
async def started(*arguments: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Process]:
    """`backpressure ARGUMENTS`; killed at the end of the block if it has not ended."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ran(*arguments: str) -> tuple[int, str, str]:
    """Run a command that ends by itself: its exit code, standard output and standard error."""
    async with started(*arguments) as process:
        code, err = await process.ended()
        return code, "\n".join(process.text), err


def written(folder: Path, yaml: str, name: str = "proxy.yaml") -> Path:
    """The configuration in a file, listening on ports that the system chooses."""
    file = folder / name
    file.write_text(ANY_PORTS + yaml)
    return file
