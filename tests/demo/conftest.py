"""An upstream that answers at once, a plain client for it, and a bare socket for what no client would do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from proxy.demo import Behaviour, Running, serve_demo

HOURS = 36_000.0
"""A service time that no test lives to see: calls with it end only when their caller leaves."""


@pytest.fixture
async def demo(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Running]:
    """An upstream that must never give uvicorn a reason to complain, whatever is done to it."""
    async with serve_demo(Behaviour(latency_s=0, event_gap_s=0)) as running:
        yield running
    assert [
        record.getMessage() for record in caplog.get_records("call") if record.name == "uvicorn.error"
    ] == []


@pytest.fixture
async def http(demo: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=demo.url, timeout=30, trust_env=False) as client:
        yield client


class Bare:
    """One connection without a client's good manners."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> None:
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"host": "demo", "content-length": str(len(raw))} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + raw)

    async def ends(self) -> tuple[bytes, bool]:
        """All that comes, and whether the connection was reset rather than closed."""
        parts = []
        try:
            while part := await self.reader.read(65536):
                parts.append(part)
        except ConnectionResetError:
            return b"".join(parts), True
        return b"".join(parts), False

    async def leave(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Bare]:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    bare = Bare(reader, writer)
    try:
        yield bare
    finally:
        writer.transport.abort()


@pytest.fixture
def bare(demo: Running):
    """`async with bare() as caller`: one connection to the upstream."""
    return lambda: connect(demo.url)


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "demo-large", "messages": [{"role": "user", "content": "Is there room?"}], **more}


@pytest.fixture
def chat_body():
    return chat


@pytest.fixture
def hours() -> float:
    return HOURS
