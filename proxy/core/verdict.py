"""Every word we answer with: reasons, kinds of refusal, outcomes."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Final, assert_never

if TYPE_CHECKING:
    from proxy.core.advice import Advice
    from proxy.core.book import Ticket

LONGEST_RETRY_AFTER_S: Final = 55
"""No wait told is longer: older SDKs ignore anything above 60 s and come back within one second
(reference/clients.md, finding 1). A longer wait is told as 55 s, again and again."""


class Reason(StrEnum):
    """Why a call was refused. The list is closed; it is the value of `x-backpressure-reason`."""

    BUCKET_EMPTY = "bucket_empty"
    QUOTA_SPENT = "quota_spent"
    CAP_REACHED = "cap_reached"
    QUEUE_FULL = "queue_full"
    WAITED_TOO_LONG = "waited_too_long"
    DISPLACED = "displaced"
    SHED = "shed"
    BREAKER_OPEN = "breaker_open"
    PAUSED = "paused"
    DRAINING = "draining"
    STORE_DOWN = "store_down"
    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    RETRY_BUDGET_SPENT = "retry_budget_spent"
    RUN_BUDGET_SPENT = "run_budget_spent"
    RUN_HALTED = "run_halted"
    TOO_DEAR = "too_dear"


class Kind(Enum):
    """What the caller should make of a refusal; decides the status and the headers (DESIGN §7)."""

    COME_BACK = "come back later"
    UNAVAILABLE = "nothing can serve you now"
    UPSTREAM = "the upstream failed"
    NOT_AGAIN = "not again for now"
    STOP = "stop"


def kind_of(reason: Reason) -> Kind:
    """The kind of a reason."""
    return _KINDS[reason]


def _kind_of(reason: Reason) -> Kind:
    """Total: a reason without a kind is a type error."""
    match reason:
        case (
            Reason.BUCKET_EMPTY
            | Reason.QUOTA_SPENT
            | Reason.CAP_REACHED
            | Reason.QUEUE_FULL
            | Reason.WAITED_TOO_LONG
            | Reason.DISPLACED
            | Reason.SHED
        ):
            return Kind.COME_BACK
        case Reason.BREAKER_OPEN | Reason.PAUSED | Reason.DRAINING | Reason.STORE_DOWN:
            return Kind.UNAVAILABLE
        case Reason.UPSTREAM_FAILED | Reason.UPSTREAM_TIMEOUT:
            return Kind.UPSTREAM
        case Reason.RETRY_BUDGET_SPENT:
            return Kind.NOT_AGAIN
        case Reason.RUN_BUDGET_SPENT | Reason.RUN_HALTED | Reason.TOO_DEAR:
            return Kind.STOP
        case _ as unreachable:
            assert_never(unreachable)


_KINDS: Final = {reason: _kind_of(reason) for reason in Reason}


def status_of(reason: Reason) -> int:
    """The HTTP status of a refusal, where the dialect has no form of its own (MCP has)."""
    match kind_of(reason):
        case Kind.COME_BACK | Kind.NOT_AGAIN:
            return 429
        case Kind.UNAVAILABLE:
            return 503
        case Kind.UPSTREAM:
            return 504 if reason is Reason.UPSTREAM_TIMEOUT else 502
        case Kind.STOP:
            return 400
        case _ as unreachable:
            assert_never(unreachable)


class Refusal:
    """A "no" that answers four questions: who refused, why, how long, what now.

    `scope` names the thing that had no room, such as `caller:3fa9c1`, `route:chat`, `tool:github/search` or
    `upstream:openai`. `limit` is its configured value in words (`1 requests/3s`, `8 in flight`), or "".
    `retry_after_s` is exact, in seconds, at most `LONGEST_RETRY_AFTER_S`; None where no time can be told.
    `ticket` is the place booked for then. `come_back` is false where none could be booked: to return by
    itself would most likely be in vain. `advice` is what else to do, where that is known. `budget` is which
    one of a run is spent (`run_budgets.BUDGETS`).
    """

    __slots__ = ("advice", "budget", "come_back", "limit", "reason", "retry_after_s", "scope", "ticket")

    def __init__(
        self,
        reason: Reason,
        scope: str,
        retry_after_s: float | None = None,
        limit: str = "",
        ticket: Ticket | None = None,
        come_back: bool = True,
        advice: Advice | None = None,
        budget: str = "",
    ) -> None:
        self.reason = reason
        self.scope = scope
        self.retry_after_s = retry_after_s
        self.limit = limit
        self.ticket = ticket
        self.come_back = come_back
        self.advice = advice
        self.budget = budget

    def __repr__(self) -> str:
        """As a test wants to read it."""
        wait = "" if self.retry_after_s is None else f" retry_after={self.retry_after_s:.3f}s"
        return f"<Refusal {self.reason} {self.scope}{wait}>"


class End(StrEnum):
    """Why we ended a caller's connection, other than after its last answer. The list is closed.

    What is answered before has the same word for its `code`, under the status that stands beside it.
    """

    BAD_REQUEST = "bad_request"  # 400
    HEAD_TOO_SLOW = "head_too_slow"  # 408
    BODY_TOO_SLOW = "body_too_slow"  # 408
    URI_TOO_LONG = "uri_too_long"  # 414
    HEADER_FIELDS_TOO_LARGE = "header_fields_too_large"  # 431
    NOT_IMPLEMENTED = "not_implemented"  # 501
    HTTP_VERSION_NOT_SUPPORTED = "http_version_not_supported"  # 505
    TOO_MANY_AHEAD = "too_many_ahead"  # after the answers that are due
    STALLED = "stalled"  # it went on neither with its request nor with taking its answer
    IDLE = "idle"  # no request came for too long
    MADE_ROOM = "made_room"  # it was idle when too many connections were open
    NO_ROOM = "no_room"  # too many connections were open, and none was idle


class Outcome(StrEnum):
    """How a lease ended. It decides what the breaker and the budgets learn."""

    SUCCEEDED = "succeeded"
    OVERLOADED = "overloaded"  # the upstream said 429: moves bucket and cap, never the breaker
    FAILED = "failed"  # 5xx, cut, timeout, no connection: feeds the breaker
    IGNORED = "ignored"  # says nothing about the upstream: the caller left, or its request was at fault
    UNUSED = "unused"  # never reached the upstream: everything is given back


SUCCEEDED: Final = Outcome.SUCCEEDED
OVERLOADED: Final = Outcome.OVERLOADED
FAILED: Final = Outcome.FAILED
IGNORED: Final = Outcome.IGNORED
UNUSED: Final = Outcome.UNUSED
"""The same by name, for where every call passes: reading a member of an enum costs 110 ns in Python 3.11."""
