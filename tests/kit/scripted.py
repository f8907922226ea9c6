"""A scripted upstream: a real socket that says exactly the bytes a test gives it, and records what it heard.

    async def script(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async with Scripted(script) as upstream:
        ... upstream.url, upstream.requests, upstream.connections

The script runs once for each connection; when it returns the connection is closed well. `answering(raw, …)`
is the script that answers every request of every connection with the next of these bytes.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.kit.listening import Listening
from tests.kit.waiting import bounded

Script = Callable[["Peer"], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Heard:
    """One request as it arrived: `raw` is the head byte for byte, `body` without chunk framing."""

    raw: bytes
    line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a header."""
        return [value for key, value in self.headers if key.lower() == name]


@dataclass
class Peer:
    """One connection, from the upstream's side."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    requests: list[Heard]
    heard_head: asyncio.Event = field(default_factory=asyncio.Event)

    async def head(self) -> Heard:
        """Read the head of the next request. Raises IncompleteReadError at the end of the connection."""
        raw = await bounded(self.reader.readuntil(b"\r\n\r\n"))
        line, *fields = raw[:-4].split(b"\r\n")
        headers = [(name, value.strip()) for name, _, value in (entry.partition(b":") for entry in fields)]
        heard = Heard(raw, line, headers)
        self.requests.append(heard)
        self.heard_head.set()
        return heard

    async def request(self) -> Heard:
        """Read the next request whole."""
        heard = await self.head()
        if heard.all(b"transfer-encoding"):
            while size := int(await bounded(self.reader.readuntil(b"\r\n")), 16):
                heard.body += (await bounded(self.reader.readexactly(size + 2)))[:-2]
            await bounded(self.reader.readuntil(b"\r\n"))
        elif length := heard.all(b"content-length"):
            heard.body = await bounded(self.reader.readexactly(int(length[0])))
        return heard

    async def read(self, size: int) -> bytes:
        """Exactly this many bytes."""
        return await bounded(self.reader.readexactly(size))

    async def send(self, data: bytes) -> None:
        """Send bytes, as they are. Raises ConnectionError when the far side is gone."""
        if self.writer.is_closing():
            raise ConnectionResetError  # uvloop would say RuntimeError
        self.writer.write(data)
        await bounded(self.writer.drain())

    async def left(self) -> None:
        """Wait until the far side has closed or reset the connection."""
        try:
            while await bounded(self.reader.read(65536)):
                pass
        except ConnectionError:
            return

    def reset(self) -> None:
        """Cut the connection with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Scripted(Listening):
    """The server. `peers` holds the connections that were accepted, `requests` what all of them heard."""

    def __init__(
        self, script: Script, *, context: ssl.SSLContext | None = None, receive_buffer: int | None = None
    ) -> None:
        super().__init__(context=context, receive_buffer=receive_buffer)
        self._script = script
        self.requests: list[Heard] = []
        self.peers: list[Peer] = []

    @property
    def connections(self) -> int:
        """How many were accepted."""
        return len(self.peers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, len(self.peers), self.requests)
        self.peers.append(peer)
        await self._script(peer)


def answering(*answers: bytes) -> Script:
    """Answer the requests of all connections, as they come; the last answer is repeated."""
    left = list(answers)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(left.pop(0) if len(left) > 1 else left[0])

    return script


def saying(answer: bytes) -> Script:
    """Answer one request with these bytes, then end the connection well."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    return script


async def silent(peer: Peer) -> None:
    """Take a request, and never answer."""
    await peer.request()
    await peer.left()


async def dies_on_second(peer: Peer) -> None:
    """Answer once; take a second request on the first connection, and end it without a byte."""
    await peer.request()
    await peer.send(OK)
    await peer.request()
    if peer.number > 0:
        await peer.send(OK)
