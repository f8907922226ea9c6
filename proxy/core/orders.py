"""In which order calls are served: by class, and within a class by kind."""

from __future__ import annotations

from typing import Final

BOOKED: Final = 0
UNDER_WAY: Final = 1
FIRST: Final = 2
RETRY: Final = 3
KINDS: Final = 4
"""In which order the calls of one class go: who returns with a ticket, who belongs to a run under way, any
other first attempt, and retries last: a retry never outranks a first attempt of its class."""

GUARD_SHARE: Final = 0.02
"""Of what the queue is given, so much is for the least important: strict order, but nobody starves."""


def order_of(rank: int, kind: int) -> int:
    """The class and, within it, the kind of a call: the smaller is served first."""
    return KINDS * rank + kind


def first_order(rank: int) -> int:
    """The first that is served of a class."""
    return KINDS * rank


def last_order(rank: int) -> int:
    """The last that is served of a class."""
    return KINDS * rank + RETRY
