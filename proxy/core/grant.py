"""What a call was granted, and those of one upstream's grants to which no answer has begun yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.core.call import Call
from proxy.core.claims import Claims
from proxy.core.rounding import NEVER

if TYPE_CHECKING:
    from proxy.core.target import Target
    from proxy.core.told import Mark

NO_MARKS: Final[list[Mark]] = []
"""Never filled: of calls to an upstream that tells nothing."""


class Grant:
    """Proof of what one call was granted. Settle it exactly once, with `silent_s` as for `Target.settle`.

    `answered`: that its answer began was told, with `Gate.answered`; `answered_bytes` are of its body, at the
    end. `crowded`: the upstream had no room for it, and said so by 503 or 529, or by saying nothing in time.
    `unsent`: it failed before there was a connection to the upstream. `own_turn` is that of its tool's
    breaker, where it has one. `marks` are `Told`'s. `cut` belongs to whoever carries the call: what ends it
    from outside, while there is something to end.
    """

    __slots__ = (
        "answered",
        "answered_bytes",
        "at",
        "call",
        "claims",
        "crowded",
        "cut",
        "marks",
        "own_turn",
        "settled",
        "silent_s",
        "target",
        "turn",
        "unsent",
        "waited_s",
    )

    def __init__(
        self, call: Call, target: Target, claims: Claims, turn: int, at: float, waited_s: float
    ) -> None:
        self.call = call
        self.target = target
        self.claims = claims
        self.turn = turn
        self.at = at
        self.waited_s = waited_s
        self.silent_s: float | None = None
        self.answered = False
        self.answered_bytes = 0
        self.crowded = False
        self.unsent = False
        self.own_turn = 0
        self.settled = False
        self.marks = NO_MARKS
        self.cut: Callable[[], None] | None = None


class Unanswered:
    """The grants of one upstream to which no answer has begun, oldest first."""

    __slots__ = ("_grants",)

    def __init__(self) -> None:
        self._grants: dict[Grant, None] = {}

    def begun(self, grant: Grant) -> None:
        """A call goes."""
        self._grants[grant] = None

    def over(self, grant: Grant) -> None:
        """Its answer begins, or it ended without. May be told twice."""
        self._grants.pop(grant, None)

    @property
    def oldest_at(self) -> float:
        """When the oldest of them began; inf when there is none."""
        for grant in self._grants:
            return grant.at
        return NEVER

    def give_up(self) -> Grant:
        """The oldest; it is none of them any more."""
        oldest = next(iter(self._grants))
        del self._grants[oldest]
        return oldest
