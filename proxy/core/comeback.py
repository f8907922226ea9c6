"""Capacity that has gone, as if half of an upstream were down: is it back?

For two minutes a few more calls are kept in flight than are believed to be best. They wait for each other;
once they do so no longer, that is seen within half a second, and the cap is at once what it was before: to
climb there by the usual steps would take ten.
"""

from __future__ import annotations

from math import log, sqrt
from typing import Final

from proxy.core.comparison import Comparison
from proxy.core.leg import Leg
from proxy.core.rounding import NEVER
from proxy.core.usual import Usual

FAR: Final = 0.5
"""So much has gone, as a logarithm: two fifths."""

REMEMBERED_S: Final = 120.0
"""For so long it may come back."""

MORE: Final = log(1.5)
"""So many more are in flight: enough for their waits to differ plainly, and no answer twice as late."""

LEGS: Final = 5
"""Legs of so many for one that is compared with them."""

COSTLY: Final = 1.2
"""Where times grow by more than the calls in flight, as logarithms, more of them do less: let it be."""

MOST_SAID, PROVEN = 2.0, 4.0
"""In standard errors: so much one comparison says at most, and so much is a proof of it."""

CERTAIN: Final = 10.0
"""It is believed in at odds of e to this power: an error costs a moment's crowd, once in minutes."""


class Comeback:
    """`knee` is the highest of late, as a logarithm; `lost` the one before it was believed to be back, until
    that is seen (0.0: nothing to see).
    """

    __slots__ = (
        "_at", "_cost", "_is_costly", "_legs", "_level", "_middle", "_since", "_sum", "_sure", "knee", "lost",
    )  # fmt: skip

    def __init__(self) -> None:
        self.knee = self.lost = 0.0
        self._at = 0.0
        self._level = 0.0  # of answers that did not wait for each other
        self._cost, self._is_costly = 0.0, False
        self._legs = 0  # of more than the best, in a row
        self._since = NEVER
        self._middle = self._sure = self._sum = 0.0

    def is_far(self, knee: float) -> bool:
        """Has much gone?"""
        return self.knee - knee > FAR

    def is_to_be_watched(self, knee: float) -> bool:
        """And does it do no harm to look for it?"""
        return self.knee - knee > FAR and not self._is_costly

    @property
    def is_watched(self) -> bool:
        """Are more in flight than are best?"""
        return self._since != NEVER

    def note(self, knee: float, now: float) -> None:
        """This is the knee, when it is known well."""
        if knee >= self.knee or now > self._at + REMEMBERED_S:
            self.knee, self._at = knee, now
            self._cost, self._is_costly = 0.0, False

    def compared(self, level: float, seen: Comparison) -> None:
        """So late were answers where none waited for another, as a mean logarithm; seen in these two legs."""
        self._level = level
        if self.is_watched:
            self._cost = max(0.0, self._cost + min(MOST_SAID, seen.beyond(COSTLY)))
            self._is_costly = self._cost >= PROVEN

    def goes_on(self, *, above: bool) -> bool:
        """Are more than the best to be in flight in the next leg? `above`: they were in this one."""
        self._legs = self._legs + 1 if above else 0
        return self._legs < LEGS

    def begin(self, above: float, scatter: float, now: float) -> None:
        """So many more than the best are in flight from now on, as a logarithm."""
        self._since, self._sum = now, 0.0
        self._middle = self._level + above / 2.0
        self._sure = CERTAIN * scatter / max(above, 0.1)

    def end(self) -> None:
        """No longer."""
        self._since = NEVER

    def forget(self) -> None:
        """Whatever was to be seen, there is something else now."""
        self.lost = 0.0
        self._since = NEVER

    def is_seen(self, granted_at: float, its_log: float) -> bool:
        """An answer began: do they no longer wait, one after the other? (Page's cumulative sum)"""
        if granted_at < self._since:
            return False
        self._sum = max(0.0, self._sum + self._middle - its_log)
        return self._sum > self._sure

    def is_false(self, leg: Leg, usual: Usual, gross: float) -> bool:
        """A leg of as many as before: was it an error? Asked once."""
        longer, above = leg.level - self._level, self.knee - self.lost
        error = sqrt(2.0 * usual.scatter / leg.counted)
        self.lost = 0.0
        self._is_costly = longer > COSTLY * above + MOST_SAID * error
        return longer > gross
