"""U3: an LLM endpoint that streams, behind the limits of its provider."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Final

from loadtests.simulate.calls import Attempt
from loadtests.simulate.clock import Timeline
from loadtests.simulate.ledger import Ledger
from loadtests.simulate.sharing import Sharing
from loadtests.simulate.upstreams import Upstream
from proxy.core.word import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, Said

SEQUENCES: Final = 64
MOST_IN_LINE: Final = 64
"""Beyond the sequences; whoever comes then is answered 529 (overloaded)."""
PREFILL_PER_S: Final = 20_000.0
"""Tokens of input a second, one prompt after the other."""
FAST_N, FAST_S, SLOW_S = 16, 0.020, 0.060
"""A token takes 20 ms among up to 16 sequences, and 60 ms among 64."""

WINDOW_S: Final = 10.0
"""Providers enforce a limit per minute over shorter windows (overload-control.md, "Provider limits")."""


class Allowance:
    """One of the provider's limits: so many a second, and `WINDOW_S` of it at once."""

    __slots__ = ("_full_at", "per_s")

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s
        self._full_at = 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until it lets one call in. It may then be overdrawn: its cost is only known later."""
        return max(0.0, self._full_at - now - WINDOW_S)

    def said(self, unit: str, now: float) -> Said:
        """As the headers of the answer to a call that comes now would have it."""
        back_s = max(0.0, self._full_at - now)
        left = max(0.0, (WINDOW_S - back_s) * self.per_s)
        return Said(unit, left, back_s, WINDOW_S * self.per_s, refills=True)

    def spend(self, amount: float, now: float) -> None:
        """So much is gone."""
        self._full_at = max(self._full_at, now) + amount / self.per_s

    def use_up(self, now: float) -> None:
        """What is refused counts as well: it takes what has refilled, and makes no debt beyond that."""
        self._full_at = max(self._full_at, min(self._full_at, now + WINDOW_S) + 1.0 / self.per_s)


class Streams(Upstream):
    """64 sequences at once and a line of as many; prefill in turn, then a token each at a common pace.

    `limits_share` moves the provider's limits (1: as they are), `slow_start` multiplies the time to the first
    token without costing anything, `counts_failed` is the mode in which a call that is refused is charged;
    with `tells` each answer says what is left of the limits, as Anthropic's do.
    """

    best_n = SEQUENCES
    is_slow_to_speak = True

    def __init__(
        self,
        timeline: Timeline,
        ledger: Ledger,
        luck: Random,
        limits: tuple[float, float, float],
        *,
        counts_failed: bool = True,
        tells: bool = False,
    ) -> None:
        super().__init__(timeline, ledger, luck)
        self.slow_start = 1.0
        self._limits = limits
        self._calls, self._in, self._out = (Allowance(per_s) for per_s in limits)
        self._counts_failed = counts_failed
        self._tells = tells
        self._share = 1.0
        self._line: deque[Attempt] = deque()
        self._running = 0
        self._prefilled_at = 0.0
        self._decoding = Sharing(timeline, self.token_s, self._ended)

    def shrink(self, share: float) -> None:
        self._decoding.move()
        self._share = share
        self._decoding.plan()

    def limit(self, share: float) -> None:
        """The provider's limits are this part of what they were."""
        for allowance, per_s in zip((self._calls, self._in, self._out), self._limits, strict=True):
            allowance.per_s = per_s * share

    def token_s(self, decoding: int) -> float:
        """Seconds for one token of each among so many."""
        beyond = min(max(0, decoding - FAST_N), SEQUENCES - FAST_N)
        return (FAST_S + (SLOW_S - FAST_S) * beyond / (SEQUENCES - FAST_N)) / self._share

    def _admit(self, attempt: Attempt) -> None:
        now = self.timeline.now
        wait_s = max(self._calls.wait_s(now), self._in.wait_s(now), self._out.wait_s(now))
        if not wait_s:
            self._calls.spend(1.0, now)
        elif self._counts_failed:
            self._calls.use_up(now)
        if wait_s:
            self._tell(attempt)
            self.timeline.plan(now + 0.001, self._refuse, (attempt, 429, wait_s))
        elif self._running < SEQUENCES:
            self._begin(attempt)
        elif len(self._line) < MOST_IN_LINE:
            self._line.append(attempt)
        else:
            self.timeline.plan(now + 0.001, self._refuse, (attempt, 529, None))

    def _tell(self, attempt: Attempt) -> None:
        if self._tells:
            now = self.timeline.now
            attempt.word = [allowance.said(unit, now) for unit, allowance in self._by_unit()]

    def _by_unit(self) -> tuple[tuple[str, Allowance], ...]:
        return (REQUESTS, self._calls), (INPUT_TOKENS, self._in), (OUTPUT_TOKENS, self._out)

    def _refuse(self, refused: tuple[Attempt, int, float | None]) -> None:
        attempt, status, told_s = refused
        if not attempt.is_over:
            self._over(attempt)
            self._answer(attempt, status, told_s)

    def _begin(self, attempt: Attempt) -> None:
        now = self.timeline.now
        self._running += 1
        attempt.begun_at = now
        self._in.spend(attempt.call.tokens_in, now)
        self._tell(attempt)
        self._prefilled_at = max(self._prefilled_at, now) + attempt.call.tokens_in / PREFILL_PER_S
        told_at = now + (self._prefilled_at - now) * self.slow_start
        self.timeline.plan(told_at, self._decode, attempt)

    def _decode(self, attempt: Attempt) -> None:
        if attempt.is_over:
            return
        attempt.first_at = self.timeline.now
        self._decoding.begin(attempt, attempt.call.tokens_out)
        if not attempt.is_left:
            self.asker.first_byte(attempt)

    def _ended(self, attempt: Attempt) -> None:
        self._running -= 1
        self._out.spend(attempt.call.tokens_out, self.timeline.now)
        self._next()  # who stands in line goes before who comes because of this answer
        self._done(attempt)

    def _remove(self, attempt: Attempt) -> None:
        attempt.is_over = True
        if attempt.begun_at < 0.0:
            return
        self._running -= 1
        if attempt.first_at >= 0.0:
            self._decoding.leave(attempt)
        self._next()

    def _next(self) -> None:
        while self._running < SEQUENCES and self._line:
            attempt = self._line.popleft()
            if not attempt.is_over:
                self._begin(attempt)
