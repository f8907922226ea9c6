"""What a run remembers: each logical call over all its attempts, each attempt at the upstream, each chain."""

from __future__ import annotations

from typing import Any, Final

CRITICAL, NORMAL, BATCH = 0, 1, 2
CLASSES: Final = ("critical", "normal", "batch")
PATIENCE_S: Final = (10.0, 30.0, 300.0)
"""By class: an answer that comes later is worthless, and its caller gone."""
FIRST_TOKEN_S: Final = (2.0, 30.0, 300.0)
"""The same of a stream, until its first token."""

OPEN: Final = "open"
GOOD: Final = "good"
LATE: Final = "late"
REFUSED: Final = "refused"  # its last attempt was refused by the proxy
EXPIRED: Final = "expired"  # its time was over in the queue, or before it asked again
CANCELLED: Final = "cancelled"  # its time was over while the upstream worked for it
FAILED: Final = "failed"  # its last attempt was answered with an error by the upstream, or not at all
ENDS: Final = (GOOD, LATE, REFUSED, EXPIRED, CANCELLED, FAILED)


class Logical:
    """One thing that somebody wants done; asked for until it is done, given up or out of time.

    `told_at`, `told_s`, `due_at` are of the last refusal by the proxy that named a time (`due_at` < 0: none).
    """

    __slots__ = (
        "arrivals", "at", "attempt", "attempts", "behaviour", "chain", "deadline", "due_at", "end",
        "ended_at", "first_at", "key", "mark", "ours", "rank", "slot_s", "step", "tenant", "tokens_in",
        "tokens_out", "told_at", "told_s", "until", "waiter", "work_s",
    )  # fmt: skip

    def __init__(self, at: float, rank: int, tenant: int, behaviour: Any, until: float) -> None:
        self.at = at
        self.rank = rank
        self.tenant = tenant
        self.behaviour = behaviour
        self.until = until
        self.deadline = float("inf")  # as the caller says it
        self.work_s = 0.0
        self.tokens_in = 0.0
        self.tokens_out = 0.0
        self.key: Any = None
        self.mark = b""
        self.chain: Chain | None = None
        self.step = 0
        self.arrivals = 0  # at the proxy
        self.attempts = 0  # at the upstream
        self.attempt: Attempt | None = None  # the one that runs
        self.waiter: Any = None
        self.end = OPEN
        self.ended_at = -1.0
        self.first_at = -1.0
        self.slot_s = 0.0  # of the upstream, over all attempts
        self.ours = False  # was its last answer a refusal of the proxy's?
        self.told_at = 0.0
        self.told_s = 0.0
        self.due_at = -1.0


class Attempt:
    """One attempt of a call at the upstream. Times are -1 until they come."""

    __slots__ = (
        "begun_at", "call", "ended_at", "first_at", "grant", "is_left", "is_over", "sent_at", "word",
    )  # fmt: skip

    def __init__(self, call: Logical, grant: Any, sent_at: float) -> None:
        self.call = call
        self.grant = grant
        self.sent_at = sent_at
        self.begun_at = -1.0  # a slot works for it
        self.first_at = -1.0
        self.ended_at = -1.0
        self.is_left = False  # nobody waits for its answer any more
        self.is_over = False  # the upstream has done with it
        self.word: Any = None  # what it says of its own limits, with the head of its answer


class Chain:
    """An agent's run: calls one after the other, worth something only when the last is done."""

    __slots__ = ("calls", "end", "run", "thinks", "works")

    def __init__(self, run: str, works: list[tuple[float, float, float, int]], thinks: list[float]) -> None:
        self.run = run
        self.works = works  # of each call: seconds, tokens in and out, bytes
        self.thinks = thinks  # before each call but the first
        self.calls: list[Logical] = []
        self.end = OPEN  # GOOD when its last call is; else the end of the call that it broke at
