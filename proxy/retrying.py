"""A call that failed before its caller got a byte: what is left of it, and whether it may be sent again.

To another rung of its route's ladder, or once more to the same (`retries:`). `pipeline` decides the order.
"""

from __future__ import annotations

from proxy.admission import Lease
from proxy.recognise import Arrival
from proxy.routing import Rung
from proxy.upstream import SAFE_METHODS, Held, Result
from proxy.wire import SMALL_BYTES, Wire


class Failed:
    """What is left of an attempt whose caller has got nothing yet: `result`, and the answer that is `held`.

    `repeated` is what came of asking once more, when that got as far as the upstream.
    """

    __slots__ = ("held", "repeated", "result", "rung")

    def __init__(self, rung: Rung, result: Result, held: Held | None) -> None:
        self.rung = rung
        self.result = result
        self.held = held
        self.repeated: Result | None = None


def conclude(lease: Lease, result: Result) -> None:
    """What became of a call is what its lease is settled by."""
    lease.outcome, result.told = result.outcome, lease.told
    lease.answered_bytes = result.answered_bytes
    lease.silent_s, lease.crowded = result.silent_s, result.crowded
    if not result.sent:
        lease.never_sent()


def may_repeat(wire: Wire, arrival: Arrival, *, sent: bool) -> bool:
    """May we repeat this call, now that it was `sent`, or was not?

    One that is a retry already is not repeated by us too: layers of retries multiply.
    """
    retries = arrival.route.retries
    if retries is None or arrival.call.is_retry or arrival.exempt:
        return False
    return _is_replayable(wire) and (not sent or retries.may_run_twice(wire.method, wire.headers))


def _is_replayable(wire: Wire) -> bool:
    return wire.body is not None or wire.is_here(SMALL_BYTES)


def may_ask_another(wire: Wire, arrival: Arrival) -> bool:
    """May a call that failed before its first byte be sent to the next rung, without doing a thing twice?

    A model call changed nothing. A tool call may have.
    """
    harmless = wire.method in SAFE_METHODS or arrival.route.dialect.is_model_api
    return harmless and _is_replayable(wire)
