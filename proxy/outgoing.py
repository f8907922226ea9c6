"""What is sent to the upstream of a rung."""

from __future__ import annotations

from proxy.dialects.bodies import ask_usage
from proxy.dialects.meter import readable
from proxy.identity import pool_of
from proxy.recognise import Arrival, Serving
from proxy.routing import Rung
from proxy.upstream import CREDENTIALS, Request
from proxy.wire import SMALL_BYTES, Wire


def rewrites(arrival: Arrival) -> bool:
    """Must the body be changed to ask another model?"""
    return arrival.route.dialect.model_in_body(arrival.rest)


def is_too_large(wire: Wire, arrival: Arrival, serving: Serving) -> bool:
    """Is the body, which must be changed to ask another model, too large for that, or does nobody know?"""
    return rewrites(arrival) and (wire.length is None or wire.length > serving.peek_bytes)


def request_of(wire: Wire, arrival: Arrival, rung: Rung) -> Request:
    """What to send to a rung's upstream. Raises Malformed.

    A small body that has arrived is read here; any other is pulled by the relay. Where tokens are counted,
    the answer will be read for them as it passes, and asked to tell them.
    """
    body = wire.arrived_whole() if wire.is_here(SMALL_BYTES) else wire.body
    rest = arrival.rest
    if rung.model:
        named = (wire.body or b"") if rewrites(arrival) else None
        rest, renamed = arrival.route.dialect.with_model(rest, named, rung.model)
        body = body if named is None else renamed
    headers = wire.headers
    if rung.foreign:
        headers = [field for field in headers if field[0] not in CREDENTIALS]
    count, ask = arrival.count, arrival.ask
    if count is not None or rung.upstream.texts is not None:
        headers = readable(headers)
    if count is not None:
        asked = False
        if count.may_ask and rung.asks_usage and ask is not None and isinstance(body, bytes):
            body, asked = ask_usage(body, ask), True
        wire.meter = count.begin(rung.upstream.name, asked=asked)
    return Request(
        method=wire.method,
        target=rung.upstream.target(rest, wire.query),
        headers=headers,
        body=body,
        length=wire.length if body is None else len(body),
        has_body=wire.has_body,
        peer=wire.peer,
        scheme=wire.scheme,
    )


def pool(wire: Wire, rung: Rung) -> str:
    """Whose allowance at the upstream the call goes by: that of its key, where it is the caller's own."""
    upstream = rung.upstream
    if upstream.ear is None or not upstream.ear.has_heard or upstream.has_credentials or rung.foreign:
        return ""
    return pool_of(wire.headers)
