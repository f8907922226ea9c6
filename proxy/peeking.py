"""What is read of a body before its call is decided, and of which bodies: as little as the decision needs."""

from __future__ import annotations

from typing import Final

from proxy.dialects.base import Ask, Dialect, Malformed
from proxy.dialects.in_body import SILENT, Said
from proxy.dialects.refusal import JSON
from proxy.dialects.routing_headers import METHOD, NAME, check_routing
from proxy.identity import Identity
from proxy.routing import Match, Route
from proxy.wire import SMALL_BYTES, Wire

PEEKED_BYTES: Final = 64 * 1024
"""Where tokens are counted, a body up to this size is read for its model and the output it allows, 50 us at
most; and waited for, as it comes with its head or in the next read. One that is longer is read only if it is
here and may ask for a stream, whose usage is to be asked for: such an answer costs its events anyway."""

STREAM: Final = b'"stream"'
HEAD_BYTES: Final = 1024
END_BYTES: Final = 4096
"""Where `stream` stands in a long body: before its messages or, as the SDKs write it, behind them."""

MOST_BLANKS: Final = 16
"""Behind that name its value begins within so many bytes."""


async def ask_of(wire: Wire, route: Route, headers: dict[bytes, bytes], peek_bytes: int) -> Ask | None:
    """What the body asks for, where the decision needs it. Raises Malformed, TooLarge, CallerGone."""
    idle_s = route.ladder[0].upstream.idle_s
    if route.dialect.needs_body(wire.method, wire.path):
        ask = route.dialect.read(await wire.read_all(peek_bytes, idle_s=idle_s))
        if METHOD in headers or NAME in headers:
            check_routing(wire.headers, ask)
        return ask
    if wire.has_body and is_json(headers.get(b"content-type", b"")):
        return read_if_any(route.dialect, await wire.read_all(peek_bytes, idle_s=idle_s))
    return None


async def said_of(
    wire: Wire, headers: dict[bytes, bytes], route: Route, identity: Identity, peek_bytes: int
) -> Said:
    """What the body says of run and urgency, where the headers leave it open. Raises CallerGone.

    One that is too large to be read before the decision, or of no declared length, says nothing: it is
    refused for that by nobody.
    """
    in_body = route.in_body
    if in_body is None or not wire.has_body or not identity.asks(in_body, headers):
        return SILENT
    if wire.body is None:
        known = wire.length is not None and wire.length <= peek_bytes
        if not known or not is_json(headers.get(b"content-type", b"")):
            return SILENT
        await wire.read_all(peek_bytes, idle_s=route.ladder[0].upstream.idle_s)
    return in_body.read(wire.body or b"")


def tells_cost(wire: Wire, headers: dict[bytes, bytes]) -> bool:
    """Is the body to be read for the tokens of its call?"""
    if not wire.has_body or wire.length is None or wire.length > SMALL_BYTES:
        return False
    if not is_json(headers.get(b"content-type", b"")):
        return False
    if wire.length <= PEEKED_BYTES:
        return True
    if not wire.is_here(SMALL_BYTES):
        return False
    whole = wire.arrived_whole()  # not copied before it is known to be of use
    return asks_for_stream(bytes(whole[:HEAD_BYTES])) or asks_for_stream(bytes(whole[-END_BYTES:]))


def asks_for_stream(part: bytes) -> bool:
    """Does this part of a body, as far as can be told without reading it, ask for a stream?"""
    at = part.find(STREAM)
    while at >= 0:
        at += len(STREAM)
        if part[at : at + MOST_BLANKS].lstrip(b" :").startswith(b"true"):
            return True
        at = part.find(STREAM, at)
    return False


def ask_for_cost(match: Match, body: bytes) -> Ask:
    """What a body asks for, by which its tokens are counted.

    Of model and stream the path has the word, where it names them.
    """
    ask = read_if_any(match.route.dialect, body)
    if match.ask is not None:
        ask.model, ask.stream = match.ask.model, match.ask.stream
    return ask


def is_json(content_type: bytes) -> bool:
    """May a body of this type be JSON? One of no type is read too, as most servers do."""
    # `in` asks of bytes whether they are a number first, which costs a microsecond.
    return content_type == JSON or not content_type or content_type.lower().find(b"json") >= 0


def read_if_any(dialect: Dialect, body: bytes) -> Ask:
    """What a body asks for; nothing, where the dialect does not speak so: that is its upstream's to say."""
    try:
        return dialect.read(body)
    except Malformed:
        return Ask()
