"""When to come back: an own instant for every refused caller, so that no two are told the same.

No SDK adds jitter to `Retry-After` (reference/clients.md, finding 2): told one time, a herd returns at one
time. Each refusal of a scope (`upstream:openai`, `caller:3fa9`) takes the next instant in that scope's
line: not before the scope has room for it, and one step after the instant told before it.

This is the first form: the instants are distinct and true for a caller who comes alone, but the capacity
is not yet kept for the returning one.
"""

from __future__ import annotations

from typing import Final

from proxy.core.verdict import LONGEST_RETRY_AFTER_S

LEAST_STEP_S: Final = 0.01
"""Instants of one scope are at least this far apart."""

SPREAD_S: Final = 10.0
"""Waits beyond what can be told are spread over the last ten of the 55 seconds."""

GOLDEN: Final = 0.6180339887498949
"""Multiples of the golden ratio, modulo one, fill an interval evenly whatever their number."""

SWEEP_FROM: Final = 1024


class Line:
    """The instants told, by scope. Memory is bounded by the scopes refused within the last 55 seconds."""

    __slots__ = ("_last", "_sweep_at", "_turn")

    def __init__(self) -> None:
        self._last: dict[str, float] = {}  # scope → the last instant told
        self._turn = 0
        self._sweep_at = SWEEP_FROM

    def book(self, scope: str, earliest_s: float, step_s: float, now: float) -> float:
        """Seconds to tell one refused caller: `earliest_s` at least, 55 at most.

        `earliest_s` is when the scope has room for one call, were nobody else told; `step_s` how much
        later the next one would have room.
        """
        at = now + earliest_s
        last = self._last.get(scope)
        if last is not None and (last > now or at <= last):
            at = max(at, last + max(step_s, LEAST_STEP_S))
        if at - now > LONGEST_RETRY_AFTER_S:
            # Whose time cannot be told is told again; whose own time still can is not told less.
            least_s = LONGEST_RETRY_AFTER_S - SPREAD_S
            if least_s < earliest_s < LONGEST_RETRY_AFTER_S - LEAST_STEP_S:  # else all would be told 55 s
                least_s = earliest_s
            return self.spread(least_s, LONGEST_RETRY_AFTER_S)
        self._last[scope] = at
        if len(self._last) > self._sweep_at:
            self._last = {key: told_at for key, told_at in self._last.items() if told_at > now}
            self._sweep_at = max(SWEEP_FROM, 2 * len(self._last))
        return at - now

    def spread(self, least_s: float, most_s: float) -> float:
        """Seconds within bounds, a different share of the span each time: where no line can be kept."""
        self._turn += 1
        return least_s + (most_s - least_s) * ((self._turn * GOLDEN) % 1.0)
