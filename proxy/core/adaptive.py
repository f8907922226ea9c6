"""The learnt cap: how many calls at once an upstream serves best, found by trying.

By Little's law the calls in flight are throughput times time. While time does not grow with the calls in
flight, throughput does; from the knee on each further call is paid for in time. So the cap goes back and
forth between two numbers, a little below where the knee is believed to be and a little above, and the knee
is where the times begin to differ: were it at or above the higher number, the times would be equal; at or
below the lower, they would be as the two numbers. Only neighbours in time are compared, so that a slow hour
of the upstream is no crowd; how far apart the two are follows from how times scatter. `SlowStart` is first.

Where answers are long and begin soon (streams), the beginning says nothing of throughput: there the cap
climbs, as long as answers begin about as early as they used to.

Precedents: Netflix concurrency-limits (Gradient2: short to long average, tolerance 1.5, no growth while the
cap is not reached), Envoy's adaptive concurrency (without its probes at a minimum), Uber's Cinnamon and
Protego (raise only while throughput follows); reference/overload-control.md §4.5.
"""

from __future__ import annotations

from math import ceil, exp, log, sqrt
from typing import Final

from proxy.core.check import GROSS, Check
from proxy.core.climb import Climb
from proxy.core.comeback import MORE, Comeback
from proxy.core.comparison import ALIKE, Comparison
from proxy.core.leg import FULL, Leg
from proxy.core.policy import AdaptivePolicy
from proxy.core.slow_start import SlowStart
from proxy.core.stalls import Stalls
from proxy.core.steps import BELOW, NEAR, NEUTRAL, WATCHFUL, WIDEST, Steps
from proxy.core.usual import FEWEST, Usual
from proxy.core.verdict import IGNORED, OVERLOADED, SUCCEEDED, Outcome
from proxy.core.wall import BACK, Wall

RAISED: Final = "raised"
SLOWER: Final = "slower"
REFUSED: Final = "refused"
"""Why the cap moved."""


class Learner:
    """How many calls at once one upstream is given, as `slots`: read it after `answered` and `settle`.

    Tell it of each call that enters and, once, of the beginning of its answer or of its end without one.
    It knows no call; `granted_at` tells under which number one went.
    """

    __slots__ = (
        "_check", "_climb", "_comeback", "_knee", "_leg", "_old", "_policy", "_rate", "_slow_start",
        "_stalls", "_steps", "_streams", "_told", "_usual", "_wall", "slots",
    )  # fmt: skip

    def __init__(self, policy: AdaptivePolicy) -> None:
        self._policy = policy
        self.slots = policy.start
        self._knee = log(policy.start)  # as a logarithm, like all that is compared
        self._told = policy.start  # by `news`
        self._slow_start = SlowStart()
        self._steps = Steps()
        self._leg: Leg | None = None
        self._old: Leg | None = None  # the one before, to compare with
        self._usual = Usual()
        self._stalls = Stalls()
        self._climb = Climb()
        self._check = Check()
        self._comeback = Comeback()
        self._wall = Wall(policy.most)
        self._streams = False
        self._rate = 0.0  # calls granted in a second of the last leg

    def adopt(self, policy: AdaptivePolicy) -> None:
        """Follow a new policy; what was learnt stays, within its bounds."""
        self._policy = policy
        self._move(self._knee)
        self.slots = min(policy.most, max(policy.least, self.slots))
        self._leg = self._old = None

    def news(self) -> tuple[int, int] | None:
        """From what to what it went, if that is a quarter or more since it was last asked; else None."""
        old, new = self._told, round(exp(self._knee))
        if 0.8 * old < new < 1.25 * old:
            return None
        self._told = new
        return old, new

    # ── what it is told ─────────────────────────────────────────────────────────────────────────────

    def enter(self, held: int, free: int, now: float) -> None:
        """A call was granted, the `held`th in flight. It could have had all `slots` but `free`."""
        slots, leg = self.slots - free, self._leg
        self._wall.held = held
        if leg is not None:
            leg.enter(held, slots, now)
        elif held >= slots:  # before the first is there nothing is known of so many
            self._begin(self.slots, now)

    def answered(self, granted_at: float, silent_s: float, tokens: float, now: float) -> str:
        """A good answer began, after `silent_s`. Returns why the cap moved, or ""."""
        usual, leg = self._usual, self._leg
        stalled = self._stalls.explain(silent_s, now) and usual.is_streamed
        silent_s = usual.answered(silent_s, tokens)
        self._wall.answered(granted_at)
        if self._check.tried and leg is not None:
            self._check.saw(leg, granted_at, usual.recent)
        if self._comeback.is_seen(granted_at, usual.its_log):
            return self._return(now)
        if leg is None or not leg.has(granted_at):
            return ""
        if not stalled:
            leg.add(silent_s, usual.its_log)
        return self._look(leg, now)

    def settle(
        self, granted_at: float, outcome: Outcome, now: float, *, answered: bool, crowded: bool = False
    ) -> str:
        """A call ended, `answered` if that was told. Returns why the cap moved, or "".

        `crowded`: the upstream said 503 or 529, or nothing in time; OVERLOADED is its 429.
        """
        if outcome is OVERLOADED or crowded:
            if self._wall.refused(granted_at, outcome, self.slots):
                return self._cut(now)
        else:
            self._wall.ended()
            if outcome is SUCCEEDED:
                self._usual.ended(now - granted_at)
        leg = self._leg
        if answered or leg is None or not leg.has(granted_at):
            return self._finish(leg, now) if leg is not None and now > leg.until else ""
        if outcome is IGNORED and self._streams:
            leg.left(now - granted_at)
        return self._look(leg, now)

    def outage(self) -> None:
        """It is down: what it refused since it last answered was no crowd, what it does now no sign."""
        if number := self._wall.outage():
            self._move(log(number))
            self.slots = round(exp(self._knee))
        self._leg = self._old = None
        self._check.tried = 0
        self._comeback.forget()

    def _cut(self, now: float) -> str:
        usual = self._usual  # a stream is answered long before its place is free
        self._wall.cut(self.slots, usual.took_s if usual.is_streamed else 0.0, now)
        self._move(log(self.slots) + BACK)
        self._steps.begin(self._least_step())
        self._climb.slow_down()
        self._slow_start.is_on, self._old, self._check.tried, self._comeback.lost = False, None, 0, 0.0
        self._begin(exp(self._knee), now)
        return REFUSED

    # ── legs ────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, slots: float, now: float) -> None:
        """The next leg. What went before is given the time of an answer to have its effect."""
        policy, usual = self._policy, self._usual
        self.slots = max(policy.least, min(self._wall.below(policy.most, now), round(slots)))
        at = now
        if self._slow_start.is_on and not usual.is_streamed:
            size = self._slow_start.leg_calls(self.slots)
        else:
            size = usual.leg_calls(self._rate, self._steps.size, is_new=self._climb.is_new)
            at += max(usual.silent_s, 0.3 * usual.took_s)
        self._leg = Leg(self.slots, at, size, at + 4.0 * max(usual.leg_s, usual.took_s), usual.late_from)
        self._wall.round()
        self._comeback.end()

    def _least_step(self) -> float:
        calls = max(FEWEST, self._rate * self._usual.leg_s)
        return self._steps.least(self._usual.scatter, calls, far=self._comeback.is_far(self._knee))

    def _look(self, leg: Leg, now: float) -> str:
        """One of the leg's sample is done."""
        leg.done += 1
        if now > leg.until:
            return self._finish(leg, now)
        if leg.granted >= leg.size and leg.done >= (0.6 if self._streams else 0.9) * leg.size:
            return self._finish(leg, now)
        if leg.done % FEWEST == 0 and self._is_gross(leg):
            return self._check_crowd(leg, now)
        return ""

    def _finish(self, leg: Leg, now: float) -> str:
        if leg.counted < min(FEWEST, leg.size) // 2:
            return self._starved()
        self._rate = leg.granted / max(leg.last_at - leg.at, 1e-3)
        late = self._streams and self._climb.is_late(leg, self._usual)
        full = 0.0 if self._check.tried else self._slow_start.full * leg.granted  # a check is to have fewer
        if leg.full < full and not (late and leg.in_flight >= FULL * leg.slots):
            return self._idle(leg, now, late=late)
        self._streams = self._usual.is_streamed
        self._usual.scattered(leg.variance if self._streams else leg.spread)
        if self._streams:
            return self._climb_on(leg, now)
        if self._slow_start.is_on:
            return self._double(leg, now)
        return self._go_on(leg, now)

    def _go_on(self, leg: Leg, now: float) -> str:
        if self._check.tried or self._comeback.lost:
            return self._checked(leg, now) if self._check.tried else self._returned(leg, now)
        old, self._old = self._old, leg
        if old is None:
            if not self._usual.calls:
                self._usual.remember(leg)
            self._begin(exp(self._knee + self._steps.size), now)
            return RAISED
        low, high = (old, leg) if old.in_flight < leg.in_flight else (leg, old)
        return self._compare(low, high, leg, now)

    def _double(self, leg: Leg, now: float) -> str:
        self._move(self._slow_start.next(leg, self._usual))
        if self._slow_start.is_on:
            self._begin(exp(self._knee), now)
        else:
            self._steps.begin(NEAR)
            self._old = self._slow_start.below
            self._begin(exp(self._knee + NEAR * (NEUTRAL if self._old else -BELOW)), now)
        return RAISED if self.slots > leg.slots else SLOWER

    def _climb_on(self, leg: Leg, now: float) -> str:
        self._slow_start.is_on, self._old, self._steps.size, before = False, None, WIDEST, self.slots
        self._move(self._climb.next(leg, self._usual))
        self._begin(exp(self._knee), now)
        return RAISED if self.slots > before else SLOWER

    def _starved(self) -> str:
        """Too few were answered well to tell anything: rise, lest it be for want of permits."""
        self._leg = self._old = None
        self._check.tried, self._comeback.lost = 0, 0.0
        if exp(self._knee) >= self._policy.start:
            return ""
        self._move(self._knee + WIDEST)
        self.slots = round(exp(self._knee))
        return RAISED

    def _idle(self, leg: Leg, now: float, *, late: bool) -> str:
        """The cap was rarely reached: nothing is known of more. Raise it if it is reached at times."""
        self._old, self._comeback.lost, before = None, 0.0, self.slots
        if late:
            pass  # of a few long prompts, or by itself: there is no telling which
        elif leg.full <= 0.02 * leg.granted or not self._usual.calls:
            self._usual.remember(leg)
        elif leg.level - self._usual.level < 0.1:
            number = exp(self._knee)
            self._move(self._knee + max(1.0, sqrt(number) / 4.0) / number)
        self._begin(exp(self._knee), now)
        return RAISED if self.slots > before else ""

    def _move(self, knee: float) -> None:
        self._knee = min(log(self._policy.most), max(log(self._policy.least), knee))

    # ── the knee between two legs ───────────────────────────────────────────────────────────────────

    def _compare(self, low: Leg, high: Leg, leg: Leg, now: float) -> str:
        seen = Comparison(low, high, self._usual)
        if seen.apart < ALIKE:
            self._next(leg, seen.share, now)
            return RAISED if self.slots > leg.slots else SLOWER
        found = seen.found + log(leg.slots / leg.in_flight)  # places held back are nobody's
        least, watching, neutral = self._least_step(), self._is_watching, NEUTRAL
        wide = self._steps.is_wide(least)
        if watching:
            neutral = min(1.0, max(0.0, log(high.in_flight) - self._knee) / seen.apart)
        gain, before = self._steps.weigh(seen, neutral, least), self._knee
        self._move(before + max(-log(2.0), min(self._steps.size, gain * (found - before))))
        self._comeback.compared(low.level - max(0.0, log(low.in_flight) - self._knee), seen)
        if not wide:
            self._comeback.note(self._knee, now)
        if not watching:  # a return is seen in another way
            self._steps.adapt(seen, self._least_step())
        self._next(leg, seen.share, now)
        return RAISED if self._knee > before else SLOWER

    def _next(self, leg: Leg, share: float, now: float) -> None:
        if self._is_watching:
            self._watch(leg, now)
        else:
            self._begin(self._steps.next(leg.slots, self._knee, share, self._least_step()), now)

    # ── is back what has gone? ──────────────────────────────────────────────────────────────────────

    @property
    def _is_watching(self) -> bool:
        return self._comeback.is_to_be_watched(self._knee) and not self._steps.is_wide(self._least_step())

    def _watch(self, leg: Leg, now: float) -> None:
        above = leg.slots > exp(self._knee)
        if not self._comeback.goes_on(above=above):
            self._begin(exp(self._knee - WATCHFUL * BELOW), now)
            return
        self._begin(max(leg.slots if above else 0, ceil(exp(self._knee + MORE))), now)
        self._comeback.begin(log(self.slots) - self._knee, self._usual.scatter, now)

    def _return(self, now: float) -> str:
        self._comeback.lost, self._old = self._knee, None
        self._steps.begin(WATCHFUL)
        self._move(self._comeback.knee)
        self._begin(exp(self._knee), now)
        return RAISED

    def _returned(self, leg: Leg, now: float) -> str:
        lost = self._comeback.lost
        if self._comeback.is_false(leg, self._usual, GROSS):
            self._move(lost)
            self._begin(exp(lost - WATCHFUL * BELOW), now)
            return SLOWER
        self._old = leg
        self._begin(exp(self._knee + self._steps.size), now)
        return RAISED

    # ── gross times: a crowd, or the upstream itself? ───────────────────────────────────────────────

    def _is_gross(self, leg: Leg) -> bool:
        if self._check.tried or self._comeback.lost or self._streams or leg.full < FULL * leg.granted:
            return False
        if not self._usual.is_sure or (self._is_watching and not self._comeback.is_watched):
            return False  # of the last, some were of a crowd that was meant to be
        # Above the knee times are longer by so much in any case.
        return self._usual.longer > GROSS + max(0.0, log(self.slots) - self._knee)

    def _check_crowd(self, leg: Leg, now: float) -> str:
        longer = self._usual.longer
        self._check.begin(leg.slots, self._usual.recent)
        self._slow_start.is_on, self._old = False, None
        self._steps.begin(WIDEST)
        self._rate *= exp(-longer)
        self._begin(self._check.fewer(leg.in_flight, longer), now)
        return SLOWER

    def _checked(self, leg: Leg, now: float) -> str:
        check, tried = self._check, self._check.tried
        if check.is_well(leg, self._usual) or leg.slots <= self._policy.least:  # it was the crowd
            check.tried, self._old = 0, leg
            self._steps.size = min(WIDEST, max(self._least_step(), log(tried / leg.slots) / 2))
            self._move(log(leg.slots))
            self._begin(exp(self._knee + self._steps.size * (1.0 - BELOW)), now)
            return SLOWER
        if check.is_crowd(leg):  # and still is
            check.begin(leg.slots, leg.level)
            self._begin(check.fewer(leg.in_flight, leg.level - self._usual.level), now)
            return SLOWER
        # It is slower by itself: this is what there is to compare with now.
        check.tried, self._old = 0, leg
        self._usual.replace(leg)
        self._move(log(tried))
        self._begin(leg.slots * 1.5, now)
        return RAISED
