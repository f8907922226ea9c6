"""What happened: the facts that the gate reports and telemetry counts. Nothing is decided by them.

Plain slotted objects: at least two are made for every call.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.core.call import Call
from proxy.core.verdict import Outcome, Reason, Refusal


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


class WouldRefuse:
    """A call goes on that something in dry run, named by `scope`, would have refused for `reason`."""

    __slots__ = ("call", "reason", "scope", "upstream")

    def __init__(self, call: Call, upstream: str, reason: Reason, scope: str) -> None:
        self.call = call
        self.upstream = upstream
        self.reason = reason
        self.scope = scope


class WouldQueue:
    """A call is refused for `reason` that a queue in dry run, had nobody been in it, would have let wait."""

    __slots__ = ("call", "reason", "scope", "upstream")

    def __init__(self, call: Call, upstream: str, reason: Reason, scope: str) -> None:
        self.call = call
        self.upstream = upstream
        self.reason = reason
        self.scope = scope


class Returned:
    """A call came back at the time that it was told: was the promise kept?"""

    __slots__ = ("admitted", "call", "upstream")

    def __init__(self, call: Call, upstream: str, *, admitted: bool) -> None:
        self.call = call
        self.upstream = upstream
        self.admitted = admitted


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
    """A breaker changed its phase: `closed`, `open` or `half-open`; `why` is for the log.

    It is the upstream's own, or that of the tool in `scope`, as configured: `tool:github/search`,
    `tool:github/*`.
    """

    __slots__ = ("new", "old", "scope", "upstream", "why")

    def __init__(self, upstream: str, old: str, new: str, why: str, scope: str = "") -> None:
        self.upstream = upstream
        self.old = old
        self.new = new
        self.why = why
        self.scope = scope


class CapMoved:
    """An upstream's learnt cap is a quarter more or less than when this was last told. `why` is one of:

    `raised`: throughput followed. `slower`: only the time of each call did. `refused`: the upstream said no.
    """

    __slots__ = ("new", "old", "upstream", "why")

    def __init__(self, upstream: str, old: int, new: int, why: str) -> None:
        self.upstream = upstream
        self.old = old
        self.new = new
        self.why = why


class PauseMoved:
    """Classes of calls to an upstream are held from now on (`on`), or let go; `why` is for the log."""

    __slots__ = ("on", "upstream", "why")

    def __init__(self, upstream: str, on: bool, why: str) -> None:
        self.upstream = upstream
        self.on = on
        self.why = why


class StoreMoved:
    """This replica stands otherwise with the shared store at `store`: `stores/contact.py` has the phases."""

    __slots__ = ("new", "old", "store", "why")

    def __init__(self, store: str, old: str, new: str, why: str) -> None:
        self.store = store
        self.old = old
        self.new = new
        self.why = why


Event = (
    Queued
    | Admitted
    | Refused
    | WouldRefuse
    | WouldQueue
    | Returned
    | Left
    | Settled
    | BreakerMoved
    | CapMoved
    | PauseMoved
    | StoreMoved
)
Emit = Callable[[Event], None]
