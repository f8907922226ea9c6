"""In which form a "no" of ours reaches this caller: that of its API, or of what it can read of it.

By the call's own headers and body, as far as they are here: none is awaited to say no.
"""

from __future__ import annotations

import time
from typing import Final

from proxy.core.verdict import Refusal
from proxy.dialects.base import Answer, Ask
from proxy.dialects.codex import needs_stream_form
from proxy.dialects.responses import cut, is_responses, refused
from proxy.peeking import read_if_any
from proxy.recognise import Arrival
from proxy.wire import Wire

CHEAP_BYTES: Final = 16 * 1024
"""Up to this size a refused call's body is known by its digest; of a larger one that costs too much."""


def refusal_answer(wire: Wire, arrival: Arrival, refusal: Refusal) -> Answer:
    """The whole answer to a call that is refused, or has failed before its first byte."""
    route = arrival.route
    if (
        route.codex
        and is_responses(route.dialect.name, arrival.rest)
        and needs_stream_form(wire.headers, always=route.codex == "on")
    ):
        ask = _ask(wire, arrival)
        if ask is None or ask.stream:  # Codex asks there for nothing else
            return refused(refusal, "" if ask is None else ask.model, int(time.time()))
    return route.dialect.refuse(
        refusal, arrival.ask, refuse_as=route.refuse_as, stop_status=route.stop_status
    )


def last_event(wire: Wire, arrival: Arrival, refusal: Refusal) -> bytes | None:
    """The last bytes of an event stream that is cut; None: reset the connection."""
    dialect = arrival.route.dialect
    if is_responses(dialect.name, arrival.rest):
        ask = _ask(wire, arrival)
        return cut(refusal, "" if ask is None else ask.model, int(time.time()))
    return dialect.cut(refusal, arrival.ask)


def _ask(wire: Wire, arrival: Arrival) -> Ask | None:
    """What the body asks for, where it was read or is here and cheap to read."""
    if arrival.ask is not None or not wire.has_body:
        return arrival.ask
    if wire.body is None and wire.is_here(CHEAP_BYTES):
        wire.take_arrived()
    if wire.body is None or len(wire.body) > CHEAP_BYTES:
        return None
    return read_if_any(arrival.route.dialect, wire.body)
