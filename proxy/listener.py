"""How callers reach us: an HTTP/1.1 connection for uvicorn, passed to it as its documented `http=` option.

uvicorn keeps the sockets, the accepting and the way out; its own protocol class is for any ASGI app, and
spends on that about as much as all the rest of a call costs. This one serves the data plane alone. It adds
what ASGI has no words for: bounds on a request's head, a call back the moment the caller disconnects (so that
nobody spends a task on waiting for it), and a reset (so that a cut answer never looks like a whole one).

What llhttp refuses in its strict mode is not repeated here: both framings at once, a Content-Length that is
doubled, signed or too large, obsolete folding, bare CR or LF, NUL and control bytes, spaces in names.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Final, cast

import httptools
from uvicorn.config import Config
from uvicorn.server import ServerState

from proxy.routing import split
from proxy.wire import Wire, last_words

MOST_UNREAD_BYTES: Final = 1024 * 1024
"""Of a body, before its reading stops: as much as may be read before a decision by default (`peek`). The
caller of a longer one is found to have left when its turn comes, which the age of its queue bounds."""

LINGER_S: Final = 2.0
"""How long after the last words more is read and thrown away. nginx: lingering_timeout 5s."""

LINGER_NOT: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, with no time: closing sends RST (socket(7))."""

MOST_PIPELINED: Final = 16
"""Requests that may be read ahead of their answers; then reading stops. No SDK sends a second one early."""


class CallerConnection(asyncio.Protocol):
    """One caller's connection: requests in, one at a time served, answers out in their order."""

    # Set by `bounded`. Precedents: nginx 4 x 8 KiB, Envoy 60 KiB and 100 headers, node 16 KiB.
    most_head_bytes: ClassVar[int] = 64 * 1024
    most_headers: ClassVar[int] = 100

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002 - uvicorn's signature; there is no lifespan
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._serve = cast("Callable[[Wire], Coroutine[Any, Any, None]]", config.loaded_app)
        self._loop = _loop or asyncio.get_event_loop()
        self._state = server_state
        self._keep_alive_s = config.timeout_keep_alive
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._transport = cast("asyncio.Transport", None)  # until connection_made
        self._on_gone: Callable[[], None] | None = None
        self._drain: asyncio.Future[None] | None = None
        self._paused = False  # reading
        self._closing = False  # after the answers that are due
        self._last_words = b""  # what is written before that
        self._idle_timer: asyncio.TimerHandle | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        # The request that is being read, and those that are to be answered, the first being served:
        self._url = b""
        self._reading: Wire | None = None
        self._head_bytes = 0
        self._in_head = True
        self._hosts = 0
        self._coding = b"chunked"
        self._resuming = False  # the parser is told of a head again that is known already
        self._due: deque[Wire] = deque()
        self.peer = b""
        self.scheme = "http"
        self.slow = False  # the caller: what was written has not left

    # ── what wire.py uses ───────────────────────────────────────────────────────────────────────────

    @property
    def gone(self) -> bool:
        """Has the caller disconnected?"""
        return self._transport.is_closing()

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` when the caller disconnects; at once if it has. None: no longer."""
        if callback is not None and self._transport.is_closing():
            callback()
        else:
            self._on_gone = callback

    def write(self, piece: bytes) -> None:
        """Bytes of an answer; nothing once the connection is lost."""
        if not self._transport.is_closing():
            self._transport.write(piece)

    async def drained(self) -> None:
        """Wait until the caller has taken enough of what was written, or has gone."""
        while self.slow and not self._transport.is_closing():
            self._drain = self._loop.create_future()
            try:
                await self._drain
            finally:
                self._drain = None

    def resume_reading(self) -> None:
        """Somebody reads the body: let more of it come."""
        if self._paused and len(self._due) <= MOST_PIPELINED:
            self._paused = False
            self._transport.resume_reading()

    def reset(self, *, hard: bool = False) -> None:
        """Cut the connection. `hard`: by RST, for an answer whose only end is the end of its connection."""
        if hard:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        self._transport.abort()

    def answered(self, wire: Wire) -> None:
        """An answer is complete: go on with the next request, or wait for one."""
        self._state.total_requests += 1
        if not wire.keep or (self._closing and len(self._due) == 1):
            self._due.clear()
            self._closing = True
            self._hang_up()
            return
        self._due.popleft()
        if self._due:
            self._start(self._due[0])
        else:
            self._idle_since = self._loop.time()
        self.resume_reading()

    # ── what the transport says ─────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._state.connections.add(self)  # type: ignore[arg-type]
        address = transport.get_extra_info("peername")
        self.peer = address[0].encode() if isinstance(address, tuple) else b""
        self.scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self._idle_since = self._loop.time()
        self._idle_timer = self._loop.call_later(self._keep_alive_s, self._look_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - how it was lost changes nothing
        self._state.connections.discard(self)
        self._parser = None
        for timer in (self._idle_timer, self._lingering):
            if timer is not None:
                timer.cancel()
        self.resume_writing()
        for wire in self._due:
            wire.wake()
        gone, self._on_gone = self._on_gone, None
        if gone is not None:
            gone()

    def data_received(self, data: bytes) -> None:
        """Read no more of a head than is allowed: httptools hands over a header only when it is whole."""
        if self._parser is None or self._closing:
            return
        self._head_bytes += len(data)  # on_body sets it back: what grows is a head, or the trailers
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(400, "bad_request", "This is not an HTTP/1.1 request, or not unambiguously one.")
        else:
            if self._head_bytes > self.most_head_bytes:
                self._too_large()

    def pause_writing(self) -> None:
        self.slow = True

    def resume_writing(self) -> None:
        self.slow = False
        drain = self._drain
        if drain is not None and not drain.done():
            drain.set_result(None)

    # ── what the parser says ────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._resuming:
            return
        self._in_head = True
        self._hosts = 0
        self._coding = b"chunked"
        self._url = b""
        self._reading = Wire(self)

    def on_url(self, url: bytes) -> None:
        """A piece of its target."""
        if not self._resuming:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers, or one of its trailers, which end here."""
        wire = self._reading
        if wire is None or not self._in_head:
            return
        name = name.lower()
        wire.headers.append((name, value))
        if name == b"content-length":
            wire.length = int(value)
        elif name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding":
            self._coding = value.lower() if not wire.has_body else b"two of them"
            wire.has_body = True
        elif name == b"expect" and value.lower() == b"100-continue":
            wire.awaits_continue = True

    def on_headers_complete(self) -> None:
        """Its head is whole: serve it, or let it wait for its turn."""
        wire, parser = self._reading, self._parser
        if wire is None or parser is None or self._closing or self._resuming:
            return
        self._in_head = False
        if self._head_bytes > self.most_head_bytes or len(wire.headers) > self.most_headers:
            # The bytes counted may hold the body too: only then is the head measured exactly.
            head = len(self._url) + sum(len(name) + len(value) for name, value in wire.headers)
            if head > self.most_head_bytes or len(wire.headers) > self.most_headers:
                self._too_large()
                return
        self._head_bytes = 0
        wire.method = parser.get_method()
        wire.path, wire.query = split(self._url)
        wire.has_body = wire.has_body or bool(wire.length)
        wire.body_arrived = not wire.has_body
        wire.http10 = parser.get_http_version() == "1.0"
        wire.keep = parser.should_keep_alive()
        if self._hosts > 1 or not (self._hosts or wire.http10):  # RFC 9112 §3.2
            self._refuse(400, "bad_request", "A request must have one Host header.")
            return
        if wire.has_body and wire.length is None and (self._coding != b"chunked" or wire.http10):
            self._refuse(501, "not_implemented", "The only transfer coding understood is chunked.")  # §6.1
            return
        self._due.append(wire)
        if len(self._due) == 1:
            self._start(wire)
        elif len(self._due) > MOST_PIPELINED:
            self._pause()

    def on_body(self, body: bytes) -> None:
        """A piece of its body. Reading goes on for long: who does not read does not learn who has left."""
        self._head_bytes = 0
        wire = self._reading
        if wire is None or wire.done or self._closing:
            return
        wire.arrive(body)
        if wire.unread_bytes > MOST_UNREAD_BYTES:
            self._pause()

    def on_message_complete(self) -> None:
        """It is here whole."""
        wire = self._reading
        if wire is not None:
            wire.body_arrived = True
            wire.awaits_continue = False
            wire.wake()
        self._in_head = True  # the next one's bytes may follow

    def shutdown(self) -> None:
        """uvicorn: end when what is due has been answered."""
        self._closing = True
        if self._due:
            for wire in self._due:
                wire.keep = False
        else:
            self._transport.close()

    def _start(self, wire: Wire) -> None:
        task = self._loop.create_task(self._serve(wire))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _look_if_idle(self) -> None:
        """One timer a connection, set anew only when it fires: most connections never see it again."""
        left_s = self._idle_since + self._keep_alive_s - self._loop.time()
        if not self._due and left_s <= 0:
            self._transport.close()
        else:
            again_s = self._keep_alive_s if self._due else left_s
            self._idle_timer = self._loop.call_later(again_s, self._look_if_idle)

    def _decline_upgrade(self, rest: bytes) -> None:
        """Go on as if no other protocol had been offered (RFC 9110 §7.8): curl and Java offer h2c.

        llhttp ends the message at the head then, and its body would be lost: a new parser, told of the same
        framing, reads it.
        """
        wire, self._parser = self._reading, httptools.HttpRequestParser(self)
        if wire is not None and wire.has_body:
            wire.body_arrived = False
            chunked = b"transfer-encoding: chunked"
            framing = chunked if wire.length is None else b"content-length: %d" % wire.length
            self._resuming = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\nhost: known\r\n%b\r\n\r\n" % framing)
            self._resuming = False
        if rest:
            self.data_received(rest)

    def _too_large(self) -> None:
        most = f"{self.most_head_bytes} bytes or {self.most_headers} headers"
        self._refuse(431, "header_fields_too_large", f"The request's head is larger than {most}.")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """These bytes are no request to be served: say so when what came before is answered, and end."""
        if self._closing or self._transport.is_closing():
            return
        self._closing = True
        self._last_words = last_words(status, code, message)
        broken = self._reading
        if broken is not None and self._due and self._due[-1] is broken and not broken.body_arrived:
            self._transport.abort()  # the body of a call that runs: it cannot be carried to an end
        elif not self._due:
            self._hang_up()

    def _hang_up(self) -> None:
        """Say the last words and close, but listen a moment longer.

        Bytes that reach a closed socket are answered by RST, and RST takes away what was said and not yet
        read. Precedent: nginx's lingering_close.
        """
        self.write(self._last_words)
        if not self._last_words or not self._transport.can_write_eof():
            self._transport.close()
        elif not self._transport.is_closing():
            self._transport.write_eof()
            self._lingering = self._loop.call_later(LINGER_S, self._transport.abort)


def bounded(*, most_head_bytes: int, most_headers: int) -> type[CallerConnection]:
    """The protocol with these bounds on the head of a request."""
    bounds = {"most_head_bytes": most_head_bytes, "most_headers": most_headers}
    return type("BoundedCallerConnection", (CallerConnection,), bounds)
