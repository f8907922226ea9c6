"""A caller made of bytes: what no HTTP client would send, and what it would not show of the answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.kit.waiting import bounded

CHAT = b'{"model":"demo","messages":[{"role":"user","content":"hi"}]}'


@dataclass
class Reply:
    """One answer as it came: names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    text: str = field(init=False)

    def __post_init__(self) -> None:
        self.text = self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        return json.loads(self.body)


class Raw:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def post(self, path: str, body: bytes = CHAT, **headers: str) -> Reply:
        """A whole POST on this connection, and its answer."""
        await self.send(head("POST", path, content_length=str(len(body)), **headers) + body)
        return await self.reply()

    async def get(self, path: str, **headers: str) -> Reply:
        """A whole GET on this connection, and its answer."""
        await self.send(head("GET", path, **headers))
        return await self.reply()

    async def reply(self) -> Reply:
        """The next answer, framed by its length. Raises IncompleteReadError where none comes."""
        raw = await bounded(self.reader.readuntil(b"\r\n\r\n"))
        line, *fields = raw[:-4].decode("latin-1").split("\r\n")
        headers = {}
        for entry in fields:
            name, _, value = entry.partition(":")
            headers[name.lower()] = value.strip()
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await bounded(self.reader.readuntil(b"\r\n")), 16):
                body += (await bounded(self.reader.readexactly(size + 2)))[:-2]
            await bounded(self.reader.readexactly(2))
        else:
            body = await bounded(self.reader.readexactly(int(headers.get("content-length", "0"))))
        return Reply(int(line.split(" ", 2)[1]), headers, body)

    async def is_closed(self) -> bool:
        """Does the far side end the connection, with nothing more to say? Waits for it."""
        try:
            return await bounded(self.reader.read(1)) == b""
        except ConnectionError:
            return True

    def leave(self) -> None:
        """Disconnect, at once."""
        self.writer.transport.abort()


def head(method: str, path: str, **headers: str) -> bytes:
    """The head of a request; `content_length="5"` is the header content-length."""
    lines = [f"{method} {path} HTTP/1.1", "host: proxy"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Raw]:
    """A connection to the proxy at `url`, closed at the end."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    raw = Raw(reader, writer)
    try:
        yield raw
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):  # the far side may have been first
            await writer.wait_closed()
