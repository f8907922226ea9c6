"""From the upstream's bytes to an answer: the glue around httptools, with no socket in it.

What llhttp already refuses in its strict mode is not repeated here: both framings at once, a Content-Length
that is doubled, signed or too large, folded lines, bare CR or LF, NUL and control bytes, spaces in names.
"""

from __future__ import annotations

from typing import Final

import httptools

from proxy.field_names import in_lower_case
from proxy.upstream.contract import Headers
from proxy.upstream.headers import HOP_BY_HOP, options_of

HEAD: Final = 0
BODY: Final = 1
COMPLETE: Final = 2

MOST_HEAD_BYTES: Final = 64 * 1024
"""Status line, headers and interim answers together; also what may pass between two pieces of a body (chunk
extensions, trailers). Precedents: Envoy 60 KiB, h11 16 KiB, nginx one page, Go's client 10 MiB."""

TOO_LONG: Final = f"more than {MOST_HEAD_BYTES} bytes of headers"

KEEP_ALIVE: Final = (b"keep-alive",)
"""What nearly every server says, and what names no field."""

_SPECIAL: Final = HOP_BY_HOP | {b"connection", b"content-length"}


class Answer:
    """One answer at a time: `reset` before each, then `feed` what arrives and `eof` at the end of it.

    `phase` goes HEAD → BODY → COMPLETE. `fault` says why the bytes are no answer; afterwards nothing counts.
    `keep` tells, once COMPLETE, whether another exchange may follow on the same connection. `headers` are
    those for the caller, names in lower case, hop-by-hop fields taken out; trailers are dropped.
    """

    __slots__ = (
        "_bodiless",
        "_connection",
        "_encodings",
        "_has_length",
        "_head_bytes",
        "_odd",
        "_parser",
        "_pieces",
        "_until_eof",
        "buffered",
        "fault",
        "headers",
        "keep",
        "phase",
        "status",
    )

    def __init__(self) -> None:
        self._parser: httptools.HttpResponseParser | None = None
        self.phase = COMPLETE
        self.reset(bodiless=False)
        self.phase = COMPLETE  # nothing was asked yet: whatever arrives is unasked for

    def reset(self, *, bodiless: bool) -> None:
        """Expect the answer to a new request; `bodiless` for one to HEAD."""
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self.phase = HEAD
        self.status = 0
        self.headers: Headers = []
        self.fault = ""
        self.keep = False
        self.buffered = 0
        self._pieces: list[bytes] = []
        self._bodiless = bodiless
        self._has_length = False
        self._until_eof = False
        self._head_bytes = 0
        self._odd = False  # the status line needs a second look
        self._encodings: tuple[bytes, ...] = ()
        self._connection: tuple[bytes, ...] = ()

    def feed(self, data: bytes) -> None:
        """Bytes arrived. Never raises; `phase`, `fault` and `buffered` tell what they were."""
        if not data:
            return
        if not self._head_bytes and self.phase == HEAD and not data.startswith(b"HTTP/1."):
            self._odd = True
            if not data.startswith(b"H"):
                self._fail("not HTTP/1.1: no status line")  # llhttp speaks RTSP and ICE too
                return
        if self.phase == HEAD and len(data) > MOST_HEAD_BYTES - self._head_bytes:
            self._feed_large(data)
        else:
            self._feed(data)

    def _feed_large(self, data: bytes) -> None:
        """More than a head may have, in one read: fine if the head ends where it must."""
        view, room = memoryview(data), MOST_HEAD_BYTES - self._head_bytes
        self._feed(view[:room])
        if self.phase == HEAD:
            self._fail(TOO_LONG)
        elif self.phase == COMPLETE:
            self.keep = False  # and there is more
        else:
            self._feed(view[room:])

    def _feed(self, data: bytes | memoryview) -> None:
        parser = self._parser
        if self.fault or parser is None:
            return
        self._head_bytes += len(data)  # on_body sets it back: a body may be as long as it likes
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("the upstream switched protocols")
        except httptools.HttpParserError as error:
            self._fail(f"not HTTP/1.1: {error}")
        if self._head_bytes > MOST_HEAD_BYTES and self.phase == BODY:
            self._fail(TOO_LONG)

    def eof(self) -> None:
        """The upstream ended the stream well. That completes an answer that has no other end."""
        if self.phase == BODY and self._until_eof:
            self.phase = COMPLETE
        self.keep = False

    def take(self) -> bytes:
        """All of the body that has arrived and was not yet taken."""
        pieces = self._pieces
        if not pieces:
            return b""
        self._pieces = []
        self.buffered = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def release(self) -> None:
        """Let go of the parser, which holds this object."""
        self._parser = None

    def _fail(self, fault: str) -> None:
        self.keep = False
        if self.phase != COMPLETE:
            self.fault = self.fault or fault

    # ── called by the parser ────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """A second answer to one request is nobody's: what follows on this connection cannot be trusted."""
        if self.phase == COMPLETE:
            self.keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        if self.phase != HEAD:
            return
        name = in_lower_case(name)
        if name not in _SPECIAL:
            self.headers.append((name, value))
        elif name == b"content-length":
            self._has_length = True
            self.headers.append((name, value.strip()))
        elif name == b"connection":
            self._connection += (value,)
        elif name == b"transfer-encoding":
            self._encodings += (value,)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        parser = self._parser
        if self.phase != HEAD or self.fault or parser is None:
            return
        status = parser.get_status_code()
        if 100 <= status <= 199:
            if status == 101:
                self._fail("the upstream switched protocols")
            # 100 is for us, who did not ask; 102 and 103 are advice that the caller can do without.
            self.headers = []
            self._connection = self._encodings = ()
            self._has_length = False
            self._odd = True
            return
        if not 200 <= status <= 599:
            self._fail(f"status {status}")
            return
        if self._odd and parser.get_http_version() not in {"1.0", "1.1"}:
            self._fail("not HTTP/1.1: another version")
            return
        self._frame(status, parser)

    def _frame(self, status: int, parser: httptools.HttpResponseParser) -> None:
        """Decide where the body ends (RFC 9112 §6.3)."""
        self.keep = parser.should_keep_alive()
        if self._encodings:
            if [value.lower() for value in self._encodings] != [b"chunked"]:
                self._fail("a Transfer-Encoding other than chunked")  # nginx: "unknown Transfer-Encoding"
                return
            self.keep = self.keep and parser.get_http_version() == "1.1"  # RFC 9112 §6.1
        if self._connection and self._connection != KEEP_ALIVE:
            named = options_of(self._connection)
            self.headers = [field for field in self.headers if field[0] not in named - {b"content-length"}]
        self.status = status
        if status in {204, 304}:
            # A 204 has no length; that of a 304 is the length of what was not sent, and optional.
            if status == 204 and (self._encodings or self._says_more()):
                self.keep = False  # who says so may send it too, and it would be the next call's answer
            self.headers = [field for field in self.headers if field[0] != b"content-length"]
            self.phase = COMPLETE
        elif self._bodiless:
            self.phase = COMPLETE
            self._parser = None  # it waits for a body that never comes
        else:
            self.phase = BODY
            self._until_eof = not self._has_length and not self._encodings
        self._head_bytes = 0

    def _says_more(self) -> bool:
        return any(name == b"content-length" and int(value) for name, value in self.headers)

    def on_body(self, body: bytes) -> None:
        """A piece of the body, its chunk framing taken off."""
        if self.phase == BODY:
            self._pieces.append(body)
            self.buffered += len(body)
            self._head_bytes = 0
        else:
            self.keep = False

    def on_message_complete(self) -> None:
        """The answer is whole, or an interim answer was."""
        if self.phase == BODY:
            self.phase = COMPLETE
