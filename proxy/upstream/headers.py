"""The head of the request we send: the caller's headers, less what is not for the upstream, plus our own.

The framing is always ours (RFC 9112 §6): exactly one of Content-Length and Transfer-Encoding, whatever the
caller wrote. Hop-by-hop fields go no further (RFC 9110 §7.6.1), also those that `Connection` names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from proxy.upstream.contract import Headers, Request, UnsendableRequest

CREDENTIALS: Final = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"proxy-authorization")
"""Where the callers of the known APIs carry a key. Dropped as soon as the configuration holds one."""

HOP_BY_HOP: Final = frozenset(
    b"keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer transfer-encoding "
    b"upgrade".split()
)
OURS: Final = frozenset({b"content-length", b"expect", b"http2-settings"})
"""Written anew, or answered by our own server side (`Expect: 100-continue`)."""

FORWARDED: Final = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")

COMMON: Final = frozenset(
    b"accept accept-charset accept-encoding accept-language anthropic-beta anthropic-version api-key "
    b"authorization cache-control content-encoding content-language content-type cookie dnt if-match "
    b"if-modified-since if-none-match if-range if-unmodified-since mcp-protocol-version mcp-session-id "
    b"openai-beta openai-organization openai-project origin pragma prefer range referer traceparent "
    b"tracestate user-agent via x-api-key x-caller-id x-deadline-ms x-goog-api-key x-priority x-request-id "
    b"x-run-id x-stainless-arch x-stainless-async x-stainless-lang x-stainless-os "
    b"x-stainless-package-version x-stainless-read-timeout x-stainless-retry-count x-stainless-runtime "
    b"x-stainless-runtime-version x-stainless-timeout".split()
)
"""Names that need no second look: a lookup is cheaper than a match against the grammar."""

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
NOT_IN_A_TARGET: Final = bytes(range(0x21)) + b"\x7f"
REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE"})
"""CONNECT asks for a tunnel; TRACE would have the upstream echo the credentials that we put in."""

BODY_EXPECTED: Final = frozenset({b"POST", b"PUT", b"PATCH"})
"""RFC 9110 §8.6: without a body these still say `Content-Length: 0`."""

_PASS, _DROP, _CONNECTION, _FORWARDED, _HOST = range(5)


def check_field(name: bytes, value: bytes) -> None:
    """Raises UnsendableRequest unless the field is one field on the wire (RFC 9110 §5.1, §5.5)."""
    if not TOKEN.fullmatch(name):
        raise UnsendableRequest("a header's name holds a character that no name may hold")
    if b"\r" in value or b"\n" in value or b"\0" in value:
        raise UnsendableRequest(f"the value of the header {name.decode()} holds a line break or NUL")


def options_of(connection: Iterable[bytes]) -> frozenset[bytes]:
    """The options of all `Connection` values, in lower case."""
    return frozenset(option.strip().lower() for value in connection for option in value.split(b","))


class RequestHead:
    """Writes request heads for one upstream: what never changes is encoded once."""

    __slots__ = ("_breaks", "_fixed", "_kinds")

    def __init__(self, authority: bytes, credentials: Mapping[str, str]) -> None:
        """`credentials` replace the caller's. Raises UnsendableRequest if they cannot be sent."""
        own = [(name.lower().encode(), value.encode("latin-1")) for name, value in credentials.items()]
        for name, value in own:
            check_field(name, value)
        self._fixed = b" HTTP/1.1\r\nhost: %b\r\n%b" % (
            authority,
            b"".join(b"%b: %b\r\n" % field for field in own),
        )
        self._breaks = self._fixed.count(b"\n")
        self._kinds = dict.fromkeys(COMMON, _PASS) | dict.fromkeys(HOP_BY_HOP | OURS, _DROP)
        self._kinds |= dict.fromkeys(FORWARDED, _FORWARDED) | {b"connection": _CONNECTION, b"host": _HOST}
        if own:
            self._kinds |= dict.fromkeys(CREDENTIALS, _DROP) | dict.fromkeys((name for name, _ in own), _DROP)

    def write(self, request: Request) -> bytes:
        """The head, to the empty line. Raises UnsendableRequest."""
        _check_line(request.method, request.target)
        kinds = self._kinds
        out = [request.method, b" ", request.target, self._fixed]
        host = b""
        connection: list[bytes] = []
        forwarded: Headers = []
        for name, value in request.headers:
            kind = kinds.get(name)
            if kind == _PASS:
                out += (name, b": ", value, b"\r\n")
            elif kind is None:
                check_field(name, value)
                out += (name, b": ", value, b"\r\n")
            elif kind == _HOST:
                host = value
            elif kind == _CONNECTION:
                connection.append(value)
            elif kind == _FORWARDED:
                forwarded.append((name, value))
        if connection and connection[0] != b"keep-alive":
            _drop(out, options_of(connection))
        breaks = self._breaks + (len(out) - 4) // 4
        head = b"".join(out)
        # One look at the whole in place of one at each value: a break that is not ours is one too many.
        if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
            for field in request.headers:
                check_field(*field)
        return b"%b%b%b\r\n" % (head, _forwarded(request, host, forwarded), _framing(request))


def _check_line(method: bytes, target: bytes) -> None:
    if method in REFUSED_METHODS or not TOKEN.fullmatch(method):
        raise UnsendableRequest("this method is not forwarded")
    if len(target.translate(None, NOT_IN_A_TARGET)) != len(target) or target[:1] not in (b"/", b"*"):
        raise UnsendableRequest("the path is not one that can be forwarded")


def _drop(out: list[bytes], named: frozenset[bytes]) -> None:
    """Take the fields that `Connection` names out again. What we wrote ourselves cannot be taken out."""
    for at in range(len(out) - 4, 3, -4):
        if out[at].lower() in named:
            del out[at : at + 4]


def _framing(request: Request) -> bytes:
    """The one framing field, or none for a request without a body."""
    length = request.length if request.body is None else len(request.body)
    if length is not None and (length or request.has_body or request.method in BODY_EXPECTED):
        return b"content-length: %d\r\n" % length
    if request.body is None and request.has_body:
        return b"transfer-encoding: chunked\r\n"
    return b"content-length: 0\r\n" if request.method in BODY_EXPECTED else b""


def _forwarded(request: Request, host: bytes, forwarded: Headers) -> bytes:
    """The X-Forwarded fields: the caller's address is added to the list; proto and host are kept once set.

    So the first proxy of a chain says how the call began, as behind nginx and Envoy with a trusted hop.
    """
    proto, peer = request.scheme.encode(), request.peer
    if forwarded:
        chain = []
        for name, value in forwarded:
            check_field(name, value)
            if name == b"x-forwarded-for":
                chain.append(value)
            elif name == b"x-forwarded-proto":
                proto = value
            else:
                host = value
        peer = b", ".join([*chain, peer]) if peer else b", ".join(chain)
    if host:
        check_field(b"host", host)
        host = b"x-forwarded-host: %b\r\n" % host
    if peer:
        return b"x-forwarded-for: %b\r\nx-forwarded-proto: %b\r\n%b" % (peer, proto, host)
    return b"x-forwarded-proto: %b\r\n%b" % (proto, host)
