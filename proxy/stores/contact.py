"""How this replica stands with the ledger: in touch, or lost, or alone; and what it may do meanwhile.

Lost: two trips in a row had no answer. What is held is spent until its lease ends, and nothing is given out
instead until every replica's leases have ended. Then it is *alone*: it enforces its safe share, the limit
over the replicas that were last seen, for `safe_for`; after that, what each route says. When the ledger is
back after all were alone, it learns for one lease, and for so long nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from proxy.core.ledger import LEASE_S
from proxy.core.policy import OnStoreFailure
from proxy.core.rounding import NEVER

SOONEST_S: Final = 0.05
LONGEST_S: Final = 1.0
"""Between two attempts to reach a ledger that is lost: doubled each time, and each time a part of it."""

HOPES: Final = 2
"""So many trips in a row without an answer, and the ledger is lost."""

REFUSE: Final = OnStoreFailure.REFUSE
OPEN: Final = OnStoreFailure.OPEN


class Phase(StrEnum):
    """How a replica stands. The list is closed: it is the value of a metric's label."""

    JOINING = "joining"  # it has not heard from the ledger yet
    SHARED = "shared"
    LEARNING = "learning"  # in touch, but the ledger gives nothing new yet
    LOST = "lost"  # out of touch; leases run out
    ALONE = "alone"  # out of touch; safe share
    GIVEN_UP = "given_up"  # out of touch for longer than `safe_for`: each route as it says


Moved = Callable[[Phase, Phase, str], None]
"""Told after a move: the old phase, the new one, and why."""


class Contact:
    """The phase of one replica, moved by what its trips bring and by time.

    `is_calm`: in touch, and nothing out of the ordinary. `chance` gives numbers from 0 to 1. `timeout_s` is
    how long a trip may take at most.
    """

    def __init__(
        self,
        *,
        safe_for_s: float,
        timeout_s: float,
        chance: Callable[[], float],
        moved: Moved = lambda _old, _new, _why: None,
    ) -> None:
        self.phase = Phase.JOINING
        self.is_calm = False
        self.replicas = 1
        self.seq = 0
        self.next_at = 0.0
        self.why = ""  # of the latest move
        self.moved_at = NEVER  # it has not moved yet
        self._safe_for_s = safe_for_s
        self._timeout_s = timeout_s
        self._chance = chance
        self._moved = moved
        self._misses = 0
        self._pause_s = SOONEST_S
        self._lost_at = 0.0
        self._alone_at = NEVER
        self._learning_until = 0.0
        self._way_s = 0.0
        self._joined = False
        self._error = ""  # why the last trip that was missed was

    @property
    def has_joined(self) -> bool:
        """Was it ever in touch with a ledger that knew its counts?"""
        return self._joined

    @property
    def is_alone(self) -> bool:
        """Does it grant by itself, without leases?"""
        return self.phase is Phase.ALONE or self.phase is Phase.GIVEN_UP

    @property
    def is_hoping(self) -> bool:
        """Is the ledger not given up yet, though the last trip had no answer?"""
        return self.phase in (Phase.JOINING, Phase.SHARED, Phase.LEARNING)

    @property
    def may_hurry(self) -> bool:
        """May a trip set out whenever somebody waits for it?"""
        return not self._misses and not self.is_alone

    def look(self, now: float) -> bool:
        """Move on by what time it is. True once: what was granted alone is over."""
        if self.phase is Phase.LOST and now >= self._alone_at:
            lost_s = now - self._lost_at
            why = f"out of reach for {lost_s:.1f}s ({self._error}): on its own share, 1/{self.replicas}"
            self._move(Phase.ALONE, why, now)
        if self.phase is Phase.ALONE and not self._learning_until and now >= self._lost_at + self._safe_for_s:
            why = f"out of reach for {self._safe_for_s:g}s ({self._error}): each route as it says"
            self._move(Phase.GIVEN_UP, why, now)
        if not self._learning_until or now < self._learning_until:
            return False
        if self.is_alone:
            self._learning_until += self._way_s  # for the ledger it is a moment later
            self._move(Phase.LEARNING, "what was granted alone is over", now)
            return True
        self._learning_until = 0.0
        self._move(Phase.SHARED, "the ledger has learnt what it did not know", now)
        return False

    def heard(self, seq: int, replicas: int, learning_s: float, sent_at: float, now: float) -> bool:
        """A trip that set out at `sent_at` was answered. True: the ledger has begun to learn."""
        self.seq = seq
        self._misses = 0
        self._pause_s = SOONEST_S
        self._way_s = now - sent_at
        if learning_s <= 0.0:
            self.replicas = max(1, replicas)  # while it learns not all have come yet
            self.next_at = NEVER
            self._learning_until = 0.0
            self._move(Phase.SHARED, "in touch", now)
            return False
        begins = not self._learning_until
        # Who is alone must not go on for too long; nobody else minds to be late.
        self._learning_until = (sent_at if self.is_alone else now) + learning_s
        self.next_at = now + learning_s
        if not self.is_alone:
            self._move(Phase.LEARNING, "the ledger knows of no counts, and gathers them", now)
        return begins

    def missed(self, why: str, sent_at: float, now: float) -> None:
        """A trip that set out at `sent_at` had no answer."""
        self._misses += 1
        self._error = why
        if self._misses == 1:
            self._lost_at = sent_at if self.is_hoping else self._lost_at
        self._pause_s = min(LONGEST_S, 2 * self._pause_s)
        self.next_at = now + self._pause_s * (0.5 + self._chance() / 2)
        if self._misses < HOPES:
            return
        if self.phase is Phase.JOINING:
            self._move(Phase.GIVEN_UP, f"{why}; never reached, so there is no share to go on with", now)
        elif self.is_hoping:
            # Others may have been given leases until just before, and all of them end before it goes alone.
            self._alone_at = self._lost_at + self._timeout_s + LEASE_S
            self._learning_until = 0.0
            self._move(Phase.LOST, why, now)
        elif self._learning_until:
            self._learning_until = 0.0  # lost again while it learnt

    def wait_s(self, now: float) -> float:
        """How long until what is not known here can be asked for; 0.0: it can be asked now."""
        if self.phase is Phase.LEARNING:
            return max(0.0, self._learning_until - now)
        return max(0.0, self._alone_at - now) if self.phase is Phase.LOST else 0.0

    def parts(self, on_store_failure: OnStoreFailure) -> int:
        """Into how many parts a limit is divided while it is alone; 0: none is its own."""
        has_share = self._joined  # else nobody knows among how many
        if self.phase is Phase.GIVEN_UP:
            if on_store_failure is OPEN:
                return 1
            has_share = has_share and on_store_failure is not REFUSE
        return self.replicas if has_share else 0

    def back_s(self, now: float) -> float:
        """When it is worth asking again, for who is refused because of it."""
        return LONGEST_S + max(0.0, self.next_at - now) if self.next_at < NEVER else LONGEST_S

    # ── for those who look on ───────────────────────────────────────────────────────────────────────

    @property
    def is_learning(self) -> bool:
        """Does the ledger gather what it does not know?"""
        return self._learning_until > 0.0

    def lost_s(self, now: float) -> float:
        """For how long the ledger has been out of reach; 0.0: the last trip was answered."""
        return max(0.0, now - self._lost_at) if self._misses else 0.0

    def moves_in_s(self, now: float) -> float:
        """How long until time alone moves it on; inf: time alone does not."""
        if self._learning_until:
            return max(0.0, self._learning_until - now)
        if self.phase is Phase.LOST:
            return max(0.0, self._alone_at - now)
        return max(0.0, self._lost_at + self._safe_for_s - now) if self.phase is Phase.ALONE else NEVER

    # ── within ──────────────────────────────────────────────────────────────────────────────────────

    def _move(self, phase: Phase, why: str, now: float) -> None:
        old, self.phase = self.phase, phase
        self.is_calm = phase is Phase.SHARED
        self._joined = self._joined or self.is_calm
        if old is not phase:
            self.why, self.moved_at = why, now
            self._moved(old, phase, why)
