"""From bytes to requests: what is read of a caller, and what is not taken for a request at all.

What llhttp refuses in its strict mode is not repeated here: both framings at once, a Content-Length that is
doubled or signed, obsolete folding, bare CR or LF, NUL and control bytes, spaces in names. Where it is more
patient than nginx and Envoy, or takes no view, this module decides.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Final, cast

import httptools

from proxy.core.verdict import End
from proxy.field_names import in_lower_case
from proxy.listener.bounds import Bounds
from proxy.routing import split
from proxy.wire import Connection, Wire

MOST_UNREAD_BYTES: Final = 1024 * 1024
"""Of a body, before its reading stops: as much as may be read before a decision by default (`peek`). The
caller of a longer one is found to have left when its turn comes, which the age of its queue bounds."""

LARGEST_LENGTH: Final = 2**63 - 1
"""Of a body. nginx's off_t: llhttp counts to 2**64, and an upstream that counts signed would see less."""

SLASH: Final = ord("/")

BETWEEN: Final = 0
HEAD: Final = 1
BODY: Final = 2
"""Where the reader stands: between two messages, in a head, or in what follows it (trailers included)."""


class Taker(Connection):
    """What the reader needs of its connection."""

    @abstractmethod
    def take(self, wire: Wire) -> None: ...
    @abstractmethod
    def pause_reading(self) -> None: ...
    @abstractmethod
    def refuse(self, status: int, why: End, message: str) -> None: ...


LONG_BYTES: Final = 64 * 1024
"""Of so much that is read at once and belongs to one body, the parser is not told: it would copy it."""

HEAD_END: Final = b"\r\n\r\n"


class Enough(Exception):
    """Nothing more is taken in: the parser stops where it stands, amid what was read at once."""


class RequestReader:
    """The parser's callbacks: fills one `Wire` after the other and hands each on when its head is whole.

    `phase` says where it stands and `wire` what it reads; once `stopped`, it takes in nothing more.
    `since` is `watch`'s: when it began to wait for the rest.
    """

    __slots__ = (
        "_body_bytes", "_coding", "_connection", "_head_bytes", "_heading", "_hosts", "_left",
        "_most_head_bytes", "_most_headers", "_most_url_bytes", "_parser", "_resuming", "_says_connection",
        "_url", "phase", "since", "stopped", "wire",
    )  # fmt: skip
    __deletable__ = ("_connection",)

    def __init__(self, connection: Taker, bounds: Bounds) -> None:
        self._connection = connection
        self._most_head_bytes = bounds.most_head_bytes
        self._most_url_bytes = min(bounds.most_url_bytes, bounds.most_head_bytes)
        self._most_headers = bounds.most_headers
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._head_bytes = 0
        self._body_bytes = 0
        self._left = 0  # of a body of which the parser is not told
        self._hosts = 0
        self._says_connection = False
        self._coding = b"chunked"
        self._heading: Wire | None = None  # the one whose headers are still to come
        self._resuming = False  # the parser is told of a head again that is known already
        self.wire: Wire | None = None
        self.phase = BETWEEN
        self.stopped = False
        self.since = 0.0

    def release(self) -> None:
        """The connection is lost: take in nothing more, and let go of it and of the parser, which hold us."""
        self.stopped = True
        del self._connection
        self._parser = cast("httptools.HttpRequestParser", None)  # never fed again once stopped
        self.wire = self._heading = None

    def feed(self, data: bytes) -> None:
        """Take in what arrived.

        Of a head no more is kept than is allowed: httptools hands over a header only when it is whole.
        """
        if self._left or len(data) >= LONG_BYTES:
            self._feed_long(data)
        else:
            self._feed(data)

    def _feed_long(self, data: bytes) -> None:
        """Hand a long body on past the parser, if its length is known.

        Where it begins, the parser alone says; and how long it is.
        """
        rest: bytes | memoryview = data
        if self.phase != BODY:
            head_bytes = data.find(HEAD_END) + len(HEAD_END)
            self._feed(data[:head_bytes])
            rest = memoryview(data)[head_bytes:]
        wire = self.wire
        if not self._left and self.phase == BODY and wire is not None and wire.length is not None:
            left = wire.length - self._body_bytes
            self._left = left if left >= LONG_BYTES else 0
        if self._left:
            piece: bytes | memoryview = rest
            if len(rest) > self._left:
                piece, rest = rest[: self._left], rest[self._left :]
            else:
                rest = b""
            self._left -= len(piece)
            self.on_body(piece if len(piece) >= LONG_BYTES else bytes(piece))
            if not self._left:
                self._parser = httptools.HttpRequestParser(self)  # the other one still waits for this body
                self.on_message_complete()
        if rest and not self.stopped:
            self._feed(rest)

    def _feed(self, data: bytes | memoryview) -> None:
        self._head_bytes += len(data)  # on_body sets it back: what grows is a head, or the trailers
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrades(data, upgrade.args[0])
        except httptools.HttpParserError:
            self._not_http()
        if self._head_bytes > self._most_head_bytes and not self.stopped:
            self._too_large()

    # ── what the parser says ────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """A request begins."""
        if self.stopped:
            raise Enough
        if self._resuming:
            return
        self.phase = HEAD
        self.since = 0.0
        self._hosts = 0
        self._says_connection = False
        self._coding = b"chunked"
        self._url = b""
        self._body_bytes = 0
        self.wire = self._heading = Wire(self._connection)

    def on_url(self, url: bytes) -> None:
        """A piece of its target."""
        if not self._resuming:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers, or one of its trailers, which end here."""
        wire = self._heading
        if wire is None:
            return
        name = in_lower_case(name)
        wire.headers.append((name, value))
        if name == b"content-length":
            wire.length = int(value)
            if wire.length > LARGEST_LENGTH:
                raise ValueError  # httptools makes a parser's error of it
        elif name == b"host":
            self._hosts += 1
        elif name == b"connection":
            self._says_connection = True
        elif name == b"transfer-encoding":
            self._coding = value.lower() if not wire.has_body else b"two of them"
            wire.has_body = True
        elif name == b"expect" and value.lower() == b"100-continue":
            wire.awaits_continue = True

    def on_headers_complete(self) -> None:
        """Its head is whole: hand it on, unless it is none that can be served."""
        wire = self.wire
        if wire is None or self.stopped or self._resuming:
            return
        if (
            len(wire.headers) > self._most_headers
            or (self._head_bytes > self._most_url_bytes and len(self._url) > self._most_url_bytes)
            or (self._head_bytes > self._most_head_bytes and not self._fits(wire))
        ):
            self._too_large()
            return
        self._head_bytes = 0
        wire.method = self._parser.get_method()
        wire.path, wire.query = split(self._url)
        wire.has_body = wire.has_body or bool(wire.length)
        wire.body_arrived = not wire.has_body
        wire.keep = self._parser.should_keep_alive()
        # HTTP/1.1 alone keeps a connection of which nothing is said (RFC 9112 §9.3).
        if (not wire.keep or self._says_connection) and not self._heed_version(wire):
            return
        if self._hosts > 1 or not (self._hosts or wire.http10):  # RFC 9112 §3.2
            self._refuse(400, End.BAD_REQUEST, "A request must have one Host header.")
            return
        if wire.has_body and wire.length is None and (self._coding != b"chunked" or wire.http10):
            self._refuse(501, End.NOT_IMPLEMENTED, "The only transfer coding understood is chunked.")  # §6.1
            return
        if self._url[0] != SLASH:
            _heed_authority(wire, self._url)
        self.phase = BODY
        self._heading = None
        self._connection.take(wire)

    def _heed_version(self, wire: Wire) -> bool:
        """False if it is none that is spoken here, which is answered then."""
        version = self._parser.get_http_version()
        if version == "1.0":
            wire.http10 = True
            wire.awaits_continue = False  # RFC 9110 §10.1.1: HTTP/1.0 knows no 100
        elif version != "1.1":
            self._refuse(505, End.HTTP_VERSION_NOT_SUPPORTED, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
            return False
        return True

    def on_body(self, body: bytes | memoryview) -> None:
        """A piece of its body. Reading goes on for long: who does not read does not learn who has left."""
        self._head_bytes = 0
        self._body_bytes += len(body)
        wire = self.wire
        if wire is None or wire.done or self.stopped:
            return
        wire.arrive(body)
        if wire.unread_bytes > MOST_UNREAD_BYTES:
            self._connection.pause_reading()

    def on_message_complete(self) -> None:
        """It is here whole."""
        wire = self.wire
        if wire is None or self.stopped or (wire.has_body and self._parser.should_upgrade()):
            return  # of an offered upgrade only the head is: see _decline_upgrades
        self.phase = BETWEEN
        self._head_bytes = 0
        wire.body_arrived = True
        wire.awaits_continue = False
        wire.wake()
        if not wire.keep:
            self.stopped = True  # RFC 9112 §9.6: what follows `Connection: close` is not looked at

    # ── what is no request ──────────────────────────────────────────────────────────────────────────

    def _decline_upgrades(self, data: bytes | memoryview, at: int) -> None:
        """Go on as if no other protocol had been offered (RFC 9110 §7.8): curl and Java offer h2c.

        llhttp ends the message at the head then, and its body would be lost: a new parser, told of the same
        framing, reads it. `at` is where in `data` the head ended.
        """
        view = memoryview(data)
        while not self.stopped:
            self._decline_upgrade()
            view = view[at:]
            try:
                self._parser.feed_data(view)
            except httptools.HttpParserUpgrade as upgrade:
                at = upgrade.args[0]
            except httptools.HttpParserError:
                self._not_http()
            else:
                return

    def _decline_upgrade(self) -> None:
        wire = self.wire
        self._parser = httptools.HttpRequestParser(self)
        if wire is not None and wire.has_body:
            chunked = b"transfer-encoding: chunked"
            framing = chunked if wire.length is None else b"content-length: %d" % wire.length
            self._resuming = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\nhost: known\r\n%b\r\n\r\n" % framing)
            self._resuming = False

    def _fits(self, wire: Wire) -> bool:
        """The bytes counted may hold the body too: only here is a head measured exactly."""
        lines = sum(len(name) + len(value) for name, value in wire.headers)
        return len(self._url) + lines <= self._most_head_bytes

    def _too_large(self) -> None:
        if len(self._url) > self._most_url_bytes:
            self._refuse(414, End.URI_TOO_LONG, f"The address is longer than {self._most_url_bytes} bytes.")
            return
        most = f"{self._most_head_bytes} bytes or {self._most_headers} headers"
        self._refuse(431, End.HEADER_FIELDS_TOO_LARGE, f"The request's head is larger than {most}.")

    def _not_http(self) -> None:
        self._refuse(400, End.BAD_REQUEST, "This is not an HTTP/1.1 request, or not unambiguously one.")

    def _refuse(self, status: int, why: End, message: str) -> None:
        if not self.stopped:
            self.stopped = True
            self._connection.refuse(status, why, message)


def _heed_authority(wire: Wire, url: bytes) -> None:
    """In an absolute target the authority stands above Host (RFC 9112 §3.2.2), as nginx and Envoy have it."""
    _, scheme, rest = url.partition(b"://")
    if not scheme:
        return  # `*`
    authority = rest.partition(b"/")[0].partition(b"?")[0].rpartition(b"@")[2]
    wire.headers = [field for field in wire.headers if field[0] != b"host"]
    wire.headers.append((b"host", authority))
