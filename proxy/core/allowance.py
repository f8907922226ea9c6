"""One allowance of an upstream as its own words have it: a balance between two words, and a pace.

An answer says what was left when the upstream decided on that call. Since then other calls have gone, which
it has not counted: what was granted after the call that brought the word is taken off. Between two words the
balance moves by what goes and by what refills.
"""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING, Final

from proxy.core.costs import BYTES_PER_TOKEN
from proxy.core.rounding import NEVER, ROUNDING_S
from proxy.core.word import OUTPUT_TOKENS, REQUESTS, TOKENS, Said

if TYPE_CHECKING:
    from proxy.core.call import Call

MINUTE_S: Final = 60.0
"""Where no reset is told: every provider that was looked at counts by the minute."""

TELLING_S: Final = 2.0
TELLING_SHARE: Final = 0.02
"""A reset sooner than this, or one for so little of the whole, is too coarse to tell a rate from: providers
round to whole seconds."""

ROUNDED_S: Final = 1.0
"""By less than this: what is gone is back no later than so long after the reset told, so it refills at least
so fast."""

FLOW_S: Final = 10.0
"""Over about so long it is counted what flows."""

RESERVE: Final = 0.02
"""Of the whole this is left, for what other clients of the same key take unseen."""

DRIFT: Final = 0.1
"""The same of what is charged as it is produced, which nobody knows before its end."""

MOST_RESERVED: Final = 0.5
"""No more than this is kept for what calls in flight may yet produce, lest long answers keep all out."""

LEARN: Final = 0.05
"""Weight of the newest word in what calls cost."""

MOST_OFF: Final = 20.0
"""No estimate is off by more than so many times."""

LEAST_PACE: Final = 1.0 / 3600.0
"""Of a call, a second: however little an upstream leaves, one goes in an hour, to hear its next word."""


class Allowance:
    """What is left of one thing, for this process: its `share` (0 to 1) of what all replicas have together.

    Costs are in the unit of the allowance. Output tokens are charged as they are produced: a call costs
    nothing when it goes, and all of it when it ends.
    """

    __slots__ = (
        "_at", "_at_word", "_costs", "_flow", "_mark", "_paced_to", "_said", "_usual", "_weighed", "_weights",
        "_window_s", "as_produced", "left", "limit", "mean", "name", "rate", "reset_at", "share", "spent",
        "unit", "weighed",
    )  # fmt: skip

    def __init__(self, said: Said, share: float, now: float) -> None:
        self.unit = said.unit
        self.name = said.name
        self.as_produced = said.unit == OUTPUT_TOKENS
        self.share = share
        self.limit = 0.0
        self.left = 0.0
        self.rate = 0.0  # a second, of all replicas; 0: it comes back at `reset_at`, all at once
        self.reset_at = NEVER
        self.mean = 0.0 if self.as_produced else 1.0  # for each that a call weighs; 0.0: not known yet
        self._costs = 0.0  # by the words of late, and what those calls weighed
        self._weights = 0.0
        self._usual = 0.0  # what a call weighs, of those that are charged as they are produced
        self.spent = 0.0  # since ever, by this process
        self.weighed = 0.0  # what all those calls weighed
        self._mark = -NEVER
        self._weighed = 0.0  # at the latest word
        self._said = -1.0  # by the latest word, for all replicas
        self._at = self._at_word = now
        self._window_s = 0.0
        self._flow = 0.0  # spent of late, fading
        self._paced_to = now  # of a window: the next goes no sooner

    # ── what is heard ───────────────────────────────────────────────────────────────────────────────

    def hear(self, said: Said, spent: float, weighed: float, decided_at: float, now: float) -> None:
        """A word on a call that went at `decided_at`, when so much had been `spent` and `weighed` with it.

        One on an earlier call than the latest word's says nothing new.
        """
        if spent < self._mark:
            return
        self._advance(now)
        past_s, limit = max(0.0, now - decided_at), self._whole(said)
        self._learn_rate(said, limit)
        self._learn_mean(said, weighed, max(0.0, decided_at - self._at_word))
        self.limit = limit
        self._mark, self._weighed = spent, weighed
        self._said, self._at_word = said.remaining, decided_at
        back = said.remaining + self.rate * past_s  # since it was decided
        if not said.remaining and self.rate and said.reset_s is not None:
            back = min(back, limit - self.rate * said.reset_s)
        self.left = min(limit, back) * self.share - (self.spent - spent)
        if not self.rate:
            reset_s = MINUTE_S if said.reset_s is None else said.reset_s
            self._window_s = max(reset_s, self._window_s if said.reset_s is not None else MINUTE_S)
            self.reset_at = now + reset_s

    def _whole(self, said: Said) -> float:
        """All of it: as said, or the most that was ever left."""
        return max(self.limit, said.remaining) if said.limit is None else max(said.limit, said.remaining)

    def _learn_rate(self, said: Said, limit: float) -> None:
        if not said.refills or said.limit is None:
            self.rate = 0.0
            return
        gone, reset_s = limit - said.remaining, said.reset_s
        is_telling = reset_s is not None and reset_s >= TELLING_S and gone >= TELLING_SHARE * limit
        if is_telling and (said.remaining or not self.rate):  # of an overdrawn one the reset tells the debt
            assert reset_s is not None, "it tells"  # noqa: S101
            self.rate = gone / reset_s
        elif not self.rate or reset_s is None:
            self.rate = limit / MINUTE_S
        elif self.limit:
            self.rate *= limit / self.limit  # the whole has changed, and the rate with it
        if reset_s:
            self.rate = max(self.rate, gone / (reset_s + ROUNDED_S))
        self.reset_at = NEVER

    def _learn_mean(self, said: Said, weighed: float, past_s: float) -> None:
        """What the calls between two words cost, as the upstream counts."""
        weight = weighed - self._weighed
        if self.unit == REQUESTS or weight <= 0.0 or self._said <= 0.0 or not said.remaining:
            return  # overdrawn, nobody knows by how much
        before = self._said + self.rate * past_s
        if before > self.limit:
            return  # it may have been full in between, and what was lost to that is not known
        self._costs += max(0.0, before - said.remaining) * self.share - LEARN * self._costs
        self._weights += weight - LEARN * self._weights
        self.mean = self._costs / self._weights
        if not self.as_produced:
            self.mean = min(MOST_OFF, max(1.0 / MOST_OFF, self.mean))

    # ── what goes ───────────────────────────────────────────────────────────────────────────────────

    def weight(self, call: Call) -> float:
        """What a call weighs in this: itself, or its tokens as estimated, by its length where nobody has.

        What is wrong with that is learnt, as `mean`.
        """
        if self.unit == REQUESTS:
            return 1.0
        if self.as_produced:
            return self._usual
        return call.tokens if call.tokens and self.unit == TOKENS else max(1.0, call.size / BYTES_PER_TOKEN)

    def produced(self, answered_bytes: int, now: float) -> None:
        """A call has ended, to which so much was answered: charged now, if this is as it is produced."""
        if answered_bytes:
            weight = answered_bytes / BYTES_PER_TOKEN
            self._usual += (LEARN if self._usual else 1.0) * (weight - self._usual)
            self.spend(self.mean * weight, weight, now)

    def cost(self, call: Call) -> float:
        """What a call is likely to cost."""
        return self.mean * self.weight(call)

    def spend(self, cost: float, weight: float, now: float) -> None:
        """One more call has gone, or, of what is charged as it is produced, has ended."""
        self._advance(now)
        if not self.rate and self.left > 0.0 and self._is_scarce(now):
            span_s = max(0.0, self.reset_at - now)
            self._paced_to = max(now, self._paced_to) + span_s * min(1.0, cost / self.left)
        self.left -= cost
        self.spent += cost
        self.weighed += weight
        self._flow += cost

    def refund(self, cost: float, weight: float) -> None:
        """A call that was to go has not."""
        self.left += cost
        self.spent -= cost
        self.weighed -= weight
        self._flow = max(0.0, self._flow - cost)

    def level(self, now: float) -> float:
        """What is left for this process; below zero where more went than there was."""
        self._advance(now)
        return self.left

    def wait_s(self, cost: float, held: int, service_s: float, kept_s: float, now: float) -> float:
        """Seconds until a call of `cost` may go; 0.0 when it may now. Spends nothing.

        `held` calls are in flight, each for `service_s`: what they will be charged is taken off, where that
        comes at their end, and what refills meanwhile is added. So much as refills in `kept_s` is others'.
        """
        self._advance(now)
        if not self.rate:
            return self._window_wait_s(cost, kept_s, now)
        pace = self.rate * self.share
        least = self.limit * self.share * (DRIFT if self.as_produced else RESERVE)
        if self.as_produced:
            least += max(0.0, held * self.mean * self._usual - pace * service_s)
            least = min(least, MOST_RESERVED * self.limit * self.share)
        # Dearer than the whole: it can go only when all is there.
        lacking = min(cost + least + kept_s * pace, self.limit * self.share) - self.left
        wait_s = lacking / pace
        return min(wait_s, 1.0 / LEAST_PACE) if wait_s > ROUNDING_S else 0.0

    def step_s(self, cost: float, now: float) -> float:
        """How much later one more call of `cost` would go."""
        if self.rate:
            return cost / (self.rate * self.share)
        span_s, left = max(ROUNDING_S, self.reset_at - now), self.left
        if left < cost:
            span_s, left = max(span_s, self._window_s), self.limit * self.share
        return min(1.0 / LEAST_PACE, span_s * cost / left if left > 0.0 else span_s)

    def _window_wait_s(self, cost: float, kept_s: float, now: float) -> float:
        if self.left < min(cost, self.limit * self.share):
            return max(ROUNDING_S, self.reset_at - now)
        if not self._is_scarce(now) and not kept_s:
            return 0.0
        wait_s = min(self._paced_to + kept_s, self.reset_at) - now
        return wait_s if wait_s > ROUNDING_S else 0.0

    def _is_scarce(self, now: float) -> bool:
        """Would what is left of a window be gone before its end, as it flows now?"""
        return self._flow / FLOW_S * (self.reset_at - now) > self.left

    def _advance(self, now: float) -> None:
        past_s = now - self._at
        if past_s <= 0.0:
            return
        self._at = now
        self._flow *= exp(-past_s / FLOW_S)
        if self.rate:
            self.left = min(self.limit * self.share, self.left + self.rate * self.share * past_s)
        elif now >= self.reset_at - ROUNDING_S:
            self.left = self.limit * self.share
            self.reset_at = now + max(self._window_s, 1.0)
            self._paced_to = now
