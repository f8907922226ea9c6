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
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")
Script = Callable[["Peer"], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
BOUND_S = 20.0
"""No wait of the kit lasts longer: a test that hangs fails with the line it hung in."""


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


class Scripted:
    """The server. `connections` counts those accepted; `open` those not yet closed."""

    def __init__(
        self, script: Script, *, context: ssl.SSLContext | None = None, receive_buffer: int | None = None
    ) -> None:
        self._script = script
        self._context = context
        self._receive_buffer = receive_buffer
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[Heard] = []
        self.peers: list[Peer] = []
        self.errors: list[BaseException] = []

    @property
    def connections(self) -> int:
        """How many were accepted."""
        return len(self.peers)

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"{'https' if self._context else 'http'}://localhost:{self.port}"

    async def __aenter__(self) -> Self:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if self._receive_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        listener.bind(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._accept, sock=listener, ssl=self._context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if error is None and self.errors:
            raise self.errors[0]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer, len(self.peers), self.requests)
        self.peers.append(peer)
        try:
            await self._script(peer)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # the far side left: a script need not say what it does then
        except Exception as error:  # noqa: BLE001 - raised again where the test can see it
            self.errors.append(error)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._tasks.discard(task)
            if self._context is not None and not writer.is_closing():
                writer.transport.close()
            else:
                writer.close()
            try:
                await writer.wait_closed()
            except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
                writer.transport.abort()


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


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until the condition holds."""
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0)


async def settled(count: Callable[[], int]) -> int:
    """Let the event loop turn until a count has stayed the same for a hundred turns; the count."""
    before = None
    async with asyncio.timeout(BOUND_S):
        while before != (before := count()):
            for _ in range(100):
                await asyncio.sleep(0)
    return count()


async def bounded(awaitable: Awaitable[T]) -> T:
    """Await, but not for ever."""
    return await asyncio.wait_for(awaitable, BOUND_S)
