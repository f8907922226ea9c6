"""A scripted HTTP/2 upstream: real frames on a real socket, one script for each stream.

async def script(stream):
    await stream.ended.wait()
    stream.answer(200, b"ok")

async with ScriptedH2(script) as upstream:
    ... upstream.url, upstream.streams, upstream.connections
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from tests.kit.listening import Listening
from tests.kit.scripted import OK, Peer, Scripted

Fields = list[tuple[bytes, bytes]]


class Stream:
    """One request, from the upstream's side."""

    def __init__(self, wire: Wire, number: int, fields: Fields) -> None:
        self.wire = wire
        self.number = number
        self.fields = fields
        self.body = b""
        self.arrived = asyncio.Event()
        self.ended = asyncio.Event()
        self.gone = asyncio.Event()

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a header."""
        return [value for key, value in self.fields if key == name]

    def head(self, status: int, *fields: tuple[bytes, bytes], end: bool = False) -> None:
        self.wire.h2.send_headers(self.number, [(b":status", b"%d" % status), *fields], end_stream=end)
        self.wire.flush()

    def send(self, piece: bytes, *, end: bool = False) -> None:
        """A piece of the body, small enough for the window."""
        self.wire.h2.send_data(self.number, piece, end_stream=end)
        self.wire.flush()

    def answer(self, status: int, body: bytes, *fields: tuple[bytes, bytes]) -> None:
        self.head(status, (b"content-length", b"%d" % len(body)), *fields)
        self.send(body, end=True)

    def reset(self, error: int = 0) -> None:
        self.wire.h2.reset_stream(self.number, error)
        self.wire.flush()


class Wire:
    """One connection."""

    def __init__(self, upstream: ScriptedH2, writer: asyncio.StreamWriter) -> None:
        self.upstream = upstream
        self.writer = writer
        self.h2 = H2Connection(H2Configuration(client_side=False, validate_outbound_headers=False))
        self.streams: dict[int, Stream] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.goodbye: ConnectionTerminated | None = None
        self.ended = False

    def flush(self) -> None:
        if not (self.ended or self.writer.is_closing()):
            self.writer.write(self.h2.data_to_send())

    def end(self) -> None:
        """Say nothing more, not even what HTTP/2 would answer by itself."""
        self.ended = True
        self.writer.write_eof()

    def leave(self, last: int | None = None) -> None:
        """GOAWAY; streams above `last` were not looked at."""
        self.h2.close_connection(last_stream_id=last)
        self.flush()

    def take(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, RequestReceived):
                stream = Stream(self, event.stream_id, list(event.headers))
                self.streams[event.stream_id] = stream
                self.upstream.streams.append(stream)
                self.tasks.add(asyncio.create_task(self.upstream.play(stream)))
            elif isinstance(event, DataReceived):
                stream = self.streams[event.stream_id]
                stream.body += event.data
                stream.arrived.set()
                if self.upstream.reads:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.streams[event.stream_id].ended.set()
            elif isinstance(event, StreamReset):
                self.streams[event.stream_id].gone.set()
            elif isinstance(event, ConnectionTerminated):
                self.goodbye = event
        self.flush()


class ScriptedH2(Listening):
    """The server. With `reads` false it takes no more of a body than its first window."""

    def __init__(
        self,
        script: Callable[[Stream], Awaitable[None]],
        *,
        context: ssl.SSLContext | None = None,
        reads: bool = True,
    ) -> None:
        super().__init__(context=context)
        self._script = script
        if context is not None:
            context.set_alpn_protocols(["h2"])
        self.reads = reads
        self.streams: list[Stream] = []
        self.wires: list[Wire] = []

    @property
    def connections(self) -> int:
        """How many were accepted."""
        return len(self.wires)

    async def play(self, stream: Stream) -> None:
        try:
            await self._script(stream)
        except ProtocolError:
            pass  # the far side left
        except Exception as error:  # noqa: BLE001 - raised again where the test can see it
            self.errors.append(error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(self, writer)
        self.wires.append(wire)
        try:
            wire.h2.initiate_connection()
            wire.flush()
            while data := await reader.read(65536):
                wire.take(data)
        except ProtocolError:
            pass  # the far side left
        finally:
            for stream in wire.streams.values():
                stream.gone.set()
            for playing in wire.tasks:
                playing.cancel()
            await asyncio.gather(*wire.tasks, return_exceptions=True)


async def ok(stream: Stream) -> None:
    """Take a request, and answer it."""
    await stream.ended.wait()
    stream.answer(200, b"ok")


def slowly(go_on: asyncio.Event, *, http2: bool) -> Scripted | ScriptedH2:
    """An upstream, of either version of HTTP, that answers nobody before `go_on`."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await go_on.wait()
            await peer.send(OK)

    async def script_of_stream(stream: Stream) -> None:
        await go_on.wait()
        stream.answer(200, b"ok")

    return ScriptedH2(script_of_stream) if http2 else Scripted(script)
