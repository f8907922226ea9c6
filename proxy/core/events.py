"""What happened: the facts that the gate reports and telemetry counts. Nothing is decided by them.

Plain slotted objects: at least two are made for every call.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.core.call import Call
from proxy.core.verdict import Outcome, Refusal


class Queued:
    """A call began to wait for `upstream`."""

    __slots__ = ("call", "upstream")

    def __init__(self, call: Call, upstream: str) -> None:
        self.call = call
        self.upstream = upstream


class Admitted:
    """A call got its lease, after `waited_s` seconds in the queue (0.0: at once)."""

    __slots__ = ("call", "upstream", "waited_s")

    def __init__(self, call: Call, upstream: str, waited_s: float) -> None:
        self.call = call
        self.upstream = upstream
        self.waited_s = waited_s


class Refused:
    """A call was refused at the door (`waited_s` 0.0) or from the queue."""

    __slots__ = ("call", "refusal", "upstream", "waited_s")

    def __init__(self, call: Call, refusal: Refusal, upstream: str, waited_s: float) -> None:
        self.call = call
        self.refusal = refusal
        self.upstream = upstream
        self.waited_s = waited_s


class Left:
    """A call ended without an answer while it waited: its caller disconnected."""

    __slots__ = ("call", "upstream", "waited_s")

    def __init__(self, call: Call, upstream: str, waited_s: float) -> None:
        self.call = call
        self.upstream = upstream
        self.waited_s = waited_s


class Settled:
    """A lease ended. `upstream_s` is the time it was held: the upstream's clock, never the queue's."""

    __slots__ = ("call", "outcome", "upstream", "upstream_s")

    def __init__(self, call: Call, upstream: str, outcome: Outcome, upstream_s: float) -> None:
        self.call = call
        self.upstream = upstream
        self.outcome = outcome
        self.upstream_s = upstream_s


class BreakerMoved:
    """An upstream's breaker changed its phase: `closed`, `open` or `half-open`; `why` is for the log."""

    __slots__ = ("new", "old", "upstream", "why")

    def __init__(self, upstream: str, old: str, new: str, why: str) -> None:
        self.upstream = upstream
        self.old = old
        self.new = new
        self.why = why


Event = Queued | Admitted | Refused | Left | Settled | BreakerMoved
Emit = Callable[[Event], None]
