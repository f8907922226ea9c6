"""One request and its answer: what the pipeline and the relay see of a caller.

A `Wire` is filled by its connection (`listener.py`) as the request arrives, and writes the answer straight to
it: a head and what follows it at once leave in one write.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from proxy.begun import Begun, in_a_task
from proxy.core.verdict import End
from proxy.dialects.meter import Meter
from proxy.field_names import line_begun
from proxy.status_lines import STATUS_LINES
from proxy.upstream import CallerGone, Downstream, Headers

EVENT_ENDS: Final = (b"\n\n", b"\n\r\n", b"\r\r")

JOINED_BYTES: Final = 64 * 1024
"""What is written in one turn of the loop leaves as one piece up to this size; above it is passed on."""

SMALL_BYTES: Final = 256 * 1024
"""A body of this size that has arrived is sent in one piece, and kept until its call has ended: a prompt of
60,000 tokens. To pull it piece by piece costs a timer and a task more."""


class Connection(ABC):
    """What a wire needs of its connection; `listener.CallerConnection` is one."""

    peer: bytes
    scheme: str
    slow: bool
    ended: Callable[[End], None]

    @property
    @abstractmethod
    def gone(self) -> bool: ...
    @abstractmethod
    def on_gone(self, callback: Callable[[], None] | None) -> None: ...
    @abstractmethod
    def write(self, piece: bytes) -> None: ...
    @abstractmethod
    async def drained(self) -> None: ...
    @abstractmethod
    def resume_reading(self) -> None: ...
    @abstractmethod
    def reset(self, *, hard: bool = False) -> None: ...
    @abstractmethod
    def answered(self, wire: Wire) -> None: ...
    @abstractmethod
    def served(self, wire: Wire) -> None: ...


class TooLarge(Exception):
    """The body is larger than may be read before a decision."""


class Wire(Downstream):
    """One HTTP exchange with a caller.

    The body is pulled once: whoever reads it whole (`read_all`) keeps it for the relay.
    """

    __slots__ = (
        "_arrived", "_chunked", "_connection", "_event_stream", "_out", "_out_bytes", "_pulled", "_reader",
        "_tail", "_unframed", "awaits_continue", "body", "body_arrived", "call", "done", "has_body",
        "headers", "http10", "keep", "length", "mark", "meter", "method", "path", "query", "started",
        "unread_bytes",
    )  # fmt: skip

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._arrived: list[bytes | memoryview] = []
        self._reader: asyncio.Future[None] | None = None
        self._pulled = False
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._chunked = self._unframed = self._event_stream = False
        self._tail = b""
        # Filled by the connection, from the request's head and as its body arrives:
        self.method = self.path = b""
        self.query: bytes | None = None
        self.headers: Headers = []
        self.length: int | None = None
        self.has_body = False
        self.http10 = False
        self.keep = True
        self.awaits_continue = self.body_arrived = False
        self.unread_bytes = 0
        # What has become of it:
        self.call: Begun | None = None  # while it is served
        self.body: bytes | None = None
        self.mark: bytes | None = None  # the digest of the body, once it was taken
        self.meter: Meter | None = None  # reads the tokens off an upstream's answer, where they are counted
        self.started = self.done = False

    @property
    def peer(self) -> bytes:
        """The caller's address, b"" when it has none."""
        return self._connection.peer

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return self._connection.scheme

    # ── the request ─────────────────────────────────────────────────────────────────────────────────

    def arrive(self, piece: bytes | memoryview) -> None:
        """The connection read a piece of the body."""
        self._arrived.append(piece)
        self.unread_bytes += len(piece)
        self.wake()

    def wake(self) -> None:
        """More of the body is here, all of it is, or the caller has gone."""
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)

    async def read_all(self, most_bytes: int, *, idle_s: float) -> bytes:
        """The whole body, kept for the relay. Raises TooLarge beyond `most_bytes`, CallerGone.

        A caller that lets `idle_s` seconds pass without sending more of it is cut, and counts as gone.
        """
        if self.body is not None:
            return self.body
        if self.length is not None and self.length > most_bytes:
            raise TooLarge
        if self.is_here(most_bytes):
            return self.take_arrived()
        await in_a_task()
        try:
            async with asyncio.timeout(idle_s) as patience:
                self.body = await self._gather(most_bytes, patience, idle_s)
        except TimeoutError:
            self.give_up()
            raise CallerGone("no more of the request sent by the caller") from None
        return self.body

    def is_here(self, most_bytes: int) -> bool:
        """Is there no body, or one of a declared length of at most `most_bytes`, whole and untouched?"""
        if not self.has_body:
            return True
        known = self.length is not None and self.length <= most_bytes
        return known and self.body_arrived and not self._pulled

    def take_arrived(self) -> bytes:
        """The whole body, kept for the relay. Only where `is_here`."""
        if self.body is None:
            self.body = b"".join(self._arrived)
            self._arrived.clear()
        return self.body

    def arrived_whole(self) -> bytes | memoryview:
        """As `take_arrived`, but a long body that came in one piece is not copied to be kept."""
        first = self._arrived[0] if len(self._arrived) == 1 else None
        return first if isinstance(first, memoryview) else self.take_arrived()

    async def next_body(self) -> bytes | memoryview | None:
        """The next piece of the body, None at its end. Raises CallerGone."""
        self._pulled = True
        while not self._arrived:
            if self.body_arrived:
                return None
            if self._connection.gone:
                raise CallerGone
            self._go_on()
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        arrived, self._arrived = self._arrived, []
        self.unread_bytes = 0
        self._connection.resume_reading()
        return arrived[0] if len(arrived) == 1 else b"".join(arrived)

    def _go_on(self) -> None:
        """Tell a caller that holds its body back to send it."""
        if self.awaits_continue:
            self.awaits_continue = False
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _gather(self, most_bytes: int, patience: asyncio.Timeout, idle_s: float) -> bytes:
        pieces: list[bytes | memoryview] = []
        size = 0
        while (piece := await self.next_body()) is not None:
            size += len(piece)
            if size > most_bytes:
                raise TooLarge
            pieces.append(piece)
            patience.reschedule(asyncio.get_running_loop().time() + idle_s)
        return b"".join(pieces)

    # ── the answer ──────────────────────────────────────────────────────────────────────────────────

    def start(self, status: int, headers: Headers) -> None:
        """The head of the answer. It leaves with what follows it in the same turn, or with `flush`."""
        if self.meter is not None:
            self.meter.begin(status, headers)
        self._head(status, headers)

    def write(self, piece: bytes) -> None:
        """A piece of the answer's body; while `slow`, wait until it is `drained`. Raises CallerGone."""
        connection = self._connection
        if connection.gone:
            raise CallerGone
        if self.meter is not None and not (piece := self.meter.take(piece)):
            return
        if self._event_stream:
            self._tail = piece[-3:] if len(piece) > 2 else (self._tail + piece)[-3:]
        if self._chunked:
            self._out += (b"%x\r\n" % len(piece), piece, b"\r\n")
        else:
            self._out.append(piece)
        self._out_bytes += len(piece)
        if self._out_bytes >= JOINED_BYTES or connection.slow:
            self.flush()

    @property
    def slow(self) -> bool:
        """Has the caller not taken enough of what was written?"""
        return self._connection.slow

    async def drained(self) -> None:
        """Wait until the caller has taken enough. Raises CallerGone."""
        await self._connection.drained()
        if self._connection.gone:
            raise CallerGone

    def flush(self) -> None:
        """What was written leaves now."""
        if self._out:
            self._connection.write(b"".join(self._out))
            self._out.clear()
            self._out_bytes = 0

    def end(self) -> None:
        """The answer is complete."""
        if self.meter is not None and (rest := self.meter.rest()):
            self.write(rest)
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        self.flush()
        self.done = True
        self._connection.answered(self)

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer of our own.

        A caller that still holds its body back (`Expect: 100-continue`) may send it or not: what follows
        on this connection would be ambiguous, so it ends here.
        """
        if self.has_body and self.awaits_continue:
            self.keep = False
        self._head(status, [*headers, (b"content-length", b"%d" % len(body))])
        if self.method != b"HEAD":
            self._out.append(body)
        self.end()

    def cut(self, event: bytes | None) -> None:
        """End an answer that cannot be completed, so that the caller can tell.

        Between two events of a stream the dialect's error `event` says so; anywhere else, and where the
        dialect has none, the connection is reset.
        """
        if self._connection.gone:
            return
        if self.meter is not None and (rest := self.meter.rest()):
            self.write(rest)
        is_between = not self._tail or self._tail.endswith(EVENT_ENDS)
        if event is not None and self._event_stream and is_between:
            self.write(event)
            self.end()
        else:
            self.reset()

    def give_up(self) -> None:
        """The caller has gone, or its turn lasted too long: then it may still be connected, and is cut."""
        if not self._connection.gone:
            self._connection.ended(End.STALLED)
            self.reset()

    def reset(self) -> None:
        """Cut the connection, after what has arrived of the answer.

        A caller sees that a length or the last chunk is missing; one of HTTP/1.0 without a length sees RST.
        """
        self.flush()
        self._connection.reset(hard=self._unframed)

    def _head(self, status: int, headers: Headers) -> None:
        self.started = True
        out = self._out
        out.append(STATUS_LINES[status])
        has_length = is_encoded = False
        for name, value in headers:
            if name == b"content-type":
                self._event_stream = value.startswith(b"text/event-stream")
            elif name == b"content-length":
                has_length = True
            elif name == b"content-encoding":
                is_encoded = True
            elif name == b"connection":
                self.keep = False  # the only word of our own answers there is `close`
                continue
            out.append(line_begun(name))
            out.append(value)
        self._frame(status, has_length=has_length)
        if not self._chunked or is_encoded:
            self._event_stream = False  # no event of ours fits into it

    def _frame(self, status: int, *, has_length: bool) -> None:
        """End the head: how the caller will know the end of the body, and of the connection."""
        if not (has_length or status in (204, 304) or self.method == b"HEAD"):
            if self.http10:
                self._unframed = True  # HTTP/1.0 has no chunks: the answer ends with the connection
                self.keep = False
            else:
                self._chunked = True
                self._out.append(b"\r\ntransfer-encoding: chunked")
        if not self.keep:
            self._out.append(b"\r\nconnection: close")
        elif self.http10:
            self._out.append(b"\r\nconnection: keep-alive")
        self._out.append(b"\r\n\r\n")

    def served(self) -> None:
        """Nobody works on it any more: the last word of whoever did. An idle connection holds no body."""
        self.body = self.meter = None
        self._arrived.clear()
        self._connection.served(self)

    # ── the caller ──────────────────────────────────────────────────────────────────────────────────

    @property
    def gone(self) -> bool:
        """Has the caller disconnected?"""
        return self._connection.gone

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` the moment the caller disconnects; at once if it has. None: no longer."""
        # Once it is answered, the connection may already watch over the next request.
        if callback is not None or not self.done:
            self._connection.on_gone(callback)
