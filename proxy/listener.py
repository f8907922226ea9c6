"""How callers reach us: uvicorn's HTTP/1.1 protocol, with what a proxy needs besides ASGI.

Passed to uvicorn as its documented `http=` option. It adds three things that ASGI has no words for: a bound
on the size of a request's head, a call back the moment the caller disconnects (so that nobody spends a task
on waiting for it), and a reset of the connection (so that a cut answer never looks like a complete one).
It puts itself into `scope["extensions"]` under `EXTENSION`; `wire.py` is its only user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

EXTENSION = "backpressure.caller"

MOST_UNREAD_BYTES: Final = 1024 * 1024
"""Of a body, before its reading stops: as much as may be read before a decision by default (`peek`). The
caller of a longer one is found to have left when its turn comes, which the age of its queue bounds."""


class CallerProtocol(HttpToolsProtocol):
    """One caller's connection."""

    # Set by `bounded`. Precedents: nginx 4 x 8 KiB, Envoy 60 KiB and 100 headers, node 16 KiB.
    most_head_bytes: ClassVar[int] = 64 * 1024
    most_headers: ClassVar[int] = 100

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_bytes = 0
        self._in_head = True
        self._gone: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        """Read no more of a head than is allowed: httptools hands over a header only when it is whole."""
        if self._in_head:
            self._head_bytes += len(data)
            super().data_received(data)
            if self._in_head and self._head_bytes > self.most_head_bytes:
                self._too_large()
        else:
            super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self.scope["extensions"] = {EXTENSION: self}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        self._in_head = False
        # The bytes counted may hold the body too: only then is the head measured exactly.
        if self._head_bytes > self.most_head_bytes or len(self.headers) > self.most_headers:
            head = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if head > self.most_head_bytes or len(self.headers) > self.most_headers:
                self._too_large()
                return
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep what arrives, and go on reading: who reads no more does not learn that the caller has left.

        In place of uvicorn's own, which stops at 64 KiB; a prompt is often longer, and waits in the queue.
        """
        cycle = self.cycle
        if self.transport.is_closing() or cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > MOST_UNREAD_BYTES:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        if not self.transport.is_closing():
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        gone, self._gone = self._gone, None
        if gone is not None:
            gone()

    def send_400_response(self, msg: str) -> None:
        """Not HTTP, or not unambiguously so: the connection cannot be trusted further."""
        if not self.transport.is_closing():
            self._last_words(400, "bad_request", msg)

    # ── what wire.py uses ───────────────────────────────────────────────────────────────────────────

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` when the caller disconnects; at once if it has. None: no longer."""
        if callback is not None and self.gone:
            callback()
        else:
            self._gone = callback

    @property
    def gone(self) -> bool:
        """Has the caller disconnected?"""
        return self.transport.is_closing()

    @property
    def body_arrived(self) -> bool:
        """Is the whole body of the current request here?"""
        return not self.cycle.more_body

    @property
    def awaits_continue(self) -> bool:
        """Does the caller hold its body back until it is told to go on?"""
        return self.cycle.waiting_for_100_continue

    def reset(self) -> None:
        """Cut the connection so that the caller can tell: a reset, never a clean end."""
        self.transport.abort()

    # ────────────────────────────────────────────────────────────────────────────────────────────────

    def _too_large(self) -> None:
        if not self.transport.is_closing():
            most = f"{self.most_head_bytes} bytes or {self.most_headers} headers"
            self._last_words(431, "header_fields_too_large", f"The request's head is larger than {most}.")

    def _last_words(self, status: int, code: str, message: str) -> None:
        body = b'{"error":{"code":"%b","message":"%b"}}' % (code.encode(), message.encode())
        self.transport.write(
            STATUS_LINE[status] + b"content-type: application/json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()


def bounded(*, most_head_bytes: int, most_headers: int) -> type[CallerProtocol]:
    """The protocol with these bounds on the head of a request."""
    bounds = {"most_head_bytes": most_head_bytes, "most_headers": most_headers}
    return type("BoundedCallerProtocol", (CallerProtocol,), bounds)
