"""The head of the request we send: the caller's headers, less what is not for the upstream, plus our own.

The framing is always ours (RFC 9112 §6): exactly one of Content-Length and Transfer-Encoding, whatever the
caller wrote. Hop-by-hop fields go no further (RFC 9110 §7.6.1), also those that `Connection` names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from proxy.field_names import COMMON, line_begun
from proxy.upstream.contract import Headers, Request, UnsendableRequest

CREDENTIALS: Final = (
    b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"ocp-apim-subscription-key",
    b"x-auth-token", b"proxy-authorization",
)  # fmt: skip
"""Where the callers of the known APIs carry a key. Dropped as soon as the configuration holds one. No cookie:
the only ones a caller has for us are its upstream's own, which sessions are pinned by."""

HOP_BY_HOP: Final = frozenset(
    b"keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer transfer-encoding "
    b"upgrade".split()
)
OURS: Final = frozenset({b"content-length", b"expect", b"http2-settings"})
"""Written anew, or answered by our own server side (`Expect: 100-continue`)."""

FORWARDED: Final = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
NOT_IN_A_TARGET: Final = bytes(range(0x21)) + b"\x7f#"
"""Where a fragment begins one server would see another path than the next: Envoy refuses it too."""

HOST: Final = re.compile(rb"[-.~!$&'()*+,;=:%\[\]\w]*")
"""RFC 3986 §3.2.2, as wide as Envoy takes it: no blank, slash, `@` or markup."""

REFUSED_METHODS: Final = frozenset(
    b"CONNECT TRACE ANNOUNCE DESCRIBE FLUSH GET_PARAMETER PAUSE PLAY RECORD REDIRECT SETUP SET_PARAMETER "
    b"TEARDOWN".split()
)
"""CONNECT asks for a tunnel; TRACE would have the upstream echo the credentials that we put in. The others
are those of RTSP, which llhttp reads too and does not tell from HTTP: nginx and Envoy answer 400."""

BODY_EXPECTED: Final = frozenset({b"POST", b"PUT", b"PATCH"})
"""RFC 9110 §8.6: without a body these still say `Content-Length: 0`."""

KNOWN_METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
LONGEST_LEARNT: Final = 256
MOST_LEARNT: Final = 512
"""So many names, targets and origins, of so many bytes at most, are remembered per upstream."""

_DROP: Final = 0
_CONNECTION: Final = 1
_FORWARDED: Final = 2
_HOST: Final = 3

_CR: Final = 13
_LF: Final = 10
_NUL: Final = 0


def check_field(name: bytes, value: bytes) -> None:
    """Raises UnsendableRequest unless the field is one field on the wire (RFC 9110 §5.1, §5.5)."""
    if not TOKEN.fullmatch(name):
        raise UnsendableRequest("a header's name holds a character that no name may hold")
    if _breaks_out(value):
        raise UnsendableRequest(f"the value of the header {name.decode()} holds a line break or NUL")


def options_of(connection: Iterable[bytes]) -> frozenset[bytes]:
    """The options of all `Connection` values, in lower case."""
    return frozenset(option.strip().lower() for value in connection for option in value.split(b","))


class RequestHead:
    """Writes request heads for one upstream: what never changes is encoded once."""

    __slots__ = ("_fixed", "_origins", "_prefixes", "_sound", "_special", "_trusted_hops")

    def __init__(
        self,
        authority: bytes,
        credentials: Mapping[str, str],
        private: Iterable[str] = (),
        *,
        trusted_hops: int = 0,
    ) -> None:
        """`credentials` replace the caller's, and headers named in `private` are dropped with those.

        `trusted_hops`: so many proxies in front of us say in X-Forwarded headers how a call began. Raises
        UnsendableRequest if the credentials cannot be sent.
        """
        self._trusted_hops = trusted_hops
        own = [(name.lower().encode(), value.encode("latin-1")) for name, value in credentials.items()]
        for name, value in own:
            check_field(name, value)
        lines = b"".join(line_begun(name) + value for name, value in own)
        self._fixed = b" HTTP/1.1\r\nhost: %b%b" % (authority, lines)
        self._special = dict.fromkeys(HOP_BY_HOP | OURS, _DROP) | dict.fromkeys(FORWARDED, _FORWARDED)
        self._special |= {b"connection": _CONNECTION, b"host": _HOST}
        if own:
            hidden = (*CREDENTIALS, *(name for name, _ in own), *(name.lower().encode() for name in private))
            self._special |= dict.fromkeys(hidden, _DROP)
        self._prefixes = {name: line_begun(name) for name in COMMON if name not in self._special}
        self._origins: dict[tuple[str, bytes, bytes], bytes] = {}
        self._sound: set[bytes] = set()  # targets that were looked at before

    def write(self, request: Request) -> bytes:
        """The head, to the empty line. Raises UnsendableRequest."""
        self._check_line(request.method, request.target)
        prefixes = self._prefixes
        out = [request.method, b" ", request.target, self._fixed]
        values: list[bytes] = []
        host = b""
        connection: list[bytes] = []
        forwarded: Headers = []
        for name, value in request.headers:
            if (prefix := prefixes.get(name)) is not None or (prefix := self._learn(name)) is not None:
                out.append(prefix)
                out.append(value)
                values.append(value)
                continue
            kind = self._special.get(name, _DROP)
            if kind == _HOST:
                host = value
            elif kind == _CONNECTION:
                connection.append(value)
            elif kind == _FORWARDED:
                forwarded.append((name, value))
        if connection and connection != [b"keep-alive"]:
            _drop(out, options_of(connection))
        out.append(self._origin(request, host) if not forwarded else self._told(request, host, forwarded))
        out.append(_framing(request))
        if _breaks_out(b"".join(values)):  # one look at all in place of one at each
            for field in request.headers:
                check_field(*field)
        return b"".join(out)

    def _check_line(self, method: bytes, target: bytes) -> None:
        if method not in KNOWN_METHODS and (method in REFUSED_METHODS or not TOKEN.fullmatch(method)):
            raise UnsendableRequest("this method is not forwarded")
        if target in self._sound:
            return
        if len(target.translate(None, NOT_IN_A_TARGET)) != len(target) or target[:1] not in (b"/", b"*"):
            raise UnsendableRequest("the path is not one that can be forwarded")
        if len(self._sound) < MOST_LEARNT and len(target) <= LONGEST_LEARNT:
            self._sound.add(target)

    def _learn(self, name: bytes) -> bytes | None:
        """What begins the line of a name not seen before; None to drop it, or if it is one of `_special`.

        Raises UnsendableRequest.

        CGI and WSGI read `x_api_key` as `x-api-key`: what is not for the upstream is not for it under that
        name either. Precedent: nginx's `underscores_in_headers off`, for all names.
        """
        if name in self._special:
            return None
        check_field(name, b"")
        if name.replace(b"_", b"-") in self._special:
            return None
        prefix = line_begun(name)
        if len(self._prefixes) < MOST_LEARNT and len(name) <= LONGEST_LEARNT:
            self._prefixes[name] = prefix
        return prefix

    def _origin(self, request: Request, host: bytes) -> bytes:
        """The X-Forwarded fields of a call that brings none: the same for all calls of a caller."""
        key = (request.scheme, request.peer, host)
        lines = self._origins.get(key)
        if lines is None:
            lines = self._told(request, host, [])
            if len(self._origins) < MOST_LEARNT and len(host) <= LONGEST_LEARNT:
                self._origins[key] = lines
        return lines

    def _told(self, request: Request, host: bytes, forwarded: Headers) -> bytes:
        """The X-Forwarded fields, as Envoy writes them.

        The caller's address is added to the list. What a caller says of its own scheme and host is believed
        of one that comes through all the trusted hops, as the length of its list shows, and of no other.
        """
        if not HOST.fullmatch(host):
            raise UnsendableRequest("the Host is none that can be forwarded")
        proto = request.scheme.encode()
        chain = [value for name, value in forwarded if name == b"x-forwarded-for"]
        if 0 < self._trusted_hops <= b",".join(chain).count(b",") + len(chain[:1]):
            for name, value in forwarded:
                if name == b"x-forwarded-proto":
                    proto = value
                elif name == b"x-forwarded-host":
                    host = value
        if request.peer:
            chain.append(request.peer)
        told = zip(FORWARDED, (b", ".join(chain), proto, host), strict=True)
        lines = [(name, value) for name, value in told if value]
        for field in lines:
            check_field(*field)
        return b"".join(line_begun(name) + value for name, value in lines)


def _breaks_out(value: bytes) -> bool:
    """Does it hold what would end a line, or a string in C? (A number is looked for by memchr.)"""
    return _LF in value or _CR in value or _NUL in value


def _drop(out: list[bytes], named: frozenset[bytes]) -> None:
    """Take the fields that `Connection` names out again. What we wrote ourselves cannot be taken out."""
    for at in range(len(out) - 2, 3, -2):
        if out[at][2:-2] in named:
            del out[at : at + 2]


def _framing(request: Request) -> bytes:
    """The one framing field, or none for a request without a body, and the end of the head."""
    length = request.length if request.body is None else len(request.body)
    if length is not None and (length or request.has_body or request.method in BODY_EXPECTED):
        return b"\r\ncontent-length: %d\r\n\r\n" % length
    if request.body is None and request.has_body:
        return b"\r\ntransfer-encoding: chunked\r\n\r\n"
    return b"\r\ncontent-length: 0\r\n\r\n" if request.method in BODY_EXPECTED else b"\r\n\r\n"
