"""One request and its answer, over ASGI: what the pipeline and the relay see of the caller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from proxy.listener import EXTENSION
from proxy.upstream import CallerGone

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

EVENT_END = b"\n\n"


class Caller(Protocol):
    """What `listener.CallerProtocol` offers beside ASGI."""

    @property
    def gone(self) -> bool: ...
    @property
    def body_arrived(self) -> bool: ...
    @property
    def awaits_continue(self) -> bool: ...
    def on_gone(self, callback: Callable[[], None] | None) -> None: ...
    def reset(self) -> None: ...


class TooLarge(Exception):
    """The body is larger than may be read before a decision."""


class Wire:
    """One HTTP exchange with a caller. Satisfies `upstream.Downstream`.

    The body is pulled once: whoever reads it whole (`read_all`) keeps it for the relay.
    """

    __slots__ = (
        "_caller", "_ended", "_event_stream", "_receive", "_send", "_tail", "body", "has_body", "headers",
        "length", "method", "path", "peer", "query", "scheme", "started",
    )  # fmt: skip

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._caller: Caller = scope["extensions"][EXTENSION]
        self._event_stream = False
        self._tail = b""
        self.method: bytes = scope["method"].encode()
        self.path: bytes = scope["raw_path"]
        self.query: bytes = scope["query_string"]
        self.scheme: str = scope["scheme"]
        self.peer: bytes = scope["client"][0].encode() if scope["client"] else b""
        pairs: Headers = scope["headers"]
        self.headers = pairs
        self.length = _length(pairs)
        self.has_body = bool(self.length) or any(name == b"transfer-encoding" for name, _ in pairs)
        self.body: bytes | None = None
        self._ended = not self.has_body
        self.started = False

    # ── the request ─────────────────────────────────────────────────────────────────────────────────

    @property
    def body_arrived(self) -> bool:
        """Is the whole body here, so that reading it waits for nobody?"""
        return not self.has_body or self._caller.body_arrived

    async def read_all(self, most_bytes: int, *, idle_s: float) -> bytes:
        """The whole body, kept for the relay. Raises TooLarge beyond `most_bytes`, CallerGone.

        A caller that lets `idle_s` seconds pass without sending more of it is cut, and counts as gone.
        """
        if self.body is None:
            if self.length is not None and self.length > most_bytes:
                raise TooLarge
            if self.body_arrived:
                self.body = await self._gather(most_bytes, None)
            else:
                try:
                    async with asyncio.timeout(idle_s) as patience:
                        self.body = await self._gather(most_bytes, lambda: _extend(patience, idle_s))
                except TimeoutError:
                    self._caller.reset()
                    raise CallerGone("no more of the request sent by the caller") from None
        return self.body

    async def next_body(self) -> bytes | None:
        """The next piece of the body, None at its end. Raises CallerGone."""
        while not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise CallerGone
            self._ended = not message.get("more_body", False)
            piece: bytes = message.get("body", b"")
            if piece:
                return piece
        return None

    async def _gather(self, most_bytes: int, progress: Callable[[], None] | None) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while (piece := await self.next_body()) is not None:
            size += len(piece)
            if size > most_bytes:
                raise TooLarge
            pieces.append(piece)
            if progress is not None:
                progress()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # ── the answer ──────────────────────────────────────────────────────────────────────────────────

    async def start(self, status: int, headers: Headers) -> None:
        """The head of the answer."""
        self.started = True
        for name, value in headers:
            if name == b"content-type":
                self._event_stream = value.startswith(b"text/event-stream")
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, piece: bytes) -> None:
        """A piece of the answer's body; suspends while the caller is slow. Raises CallerGone."""
        if self._caller.gone:
            raise CallerGone
        if self._event_stream:
            self._tail = piece[-2:] if len(piece) > 1 else self._tail[-1:] + piece
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self) -> None:
        """The answer is complete."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer of our own.

        A caller that still holds its body back (`Expect: 100-continue`) may send it or not: what follows
        on this connection would be ambiguous, so it ends here.
        """
        self.started = True
        if self.has_body and self._caller.awaits_continue:
            headers = [*headers, (b"connection", b"close")]
        headers = [*headers, (b"content-length", b"%d" % len(body))]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def cut(self, event: bytes | None) -> None:
        """End an answer that cannot be completed, so that the caller can tell.

        Between two events of a stream the dialect's error `event` says so; anywhere else, and where the
        dialect has none, the connection is reset.
        """
        if self._caller.gone:
            return
        if event is not None and self._event_stream and self._tail in (b"", EVENT_END):
            await self.write(event)
            await self.end()
        else:
            self._caller.reset()

    # ── the caller ──────────────────────────────────────────────────────────────────────────────────

    @property
    def gone(self) -> bool:
        """Has the caller disconnected?"""
        return self._caller.gone

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` the moment the caller disconnects; at once if it has. None: no longer."""
        self._caller.on_gone(callback)


def _extend(patience: asyncio.Timeout, by_s: float) -> None:
    patience.reschedule(asyncio.get_running_loop().time() + by_s)


def _length(headers: Headers) -> int | None:
    """The declared length of the body; the listener has refused any that is not one number."""
    for name, value in headers:
        if name == b"content-length":
            return int(value)
    return None
