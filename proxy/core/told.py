"""What one upstream has told of its allowances, whose they are, and who may go by that.

Most upstreams tell nothing: their target has no `Told`. A 429 that says when to come again holds all calls of
its pool until then; afterwards they go in steps, few at first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.core.allowance import Allowance
from proxy.core.claims import Shortfall
from proxy.core.grant import NO_MARKS
from proxy.core.rounding import NEVER, ROUNDING_S
from proxy.core.verdict import UNUSED, Outcome, Reason
from proxy.core.word import Word

if TYPE_CHECKING:
    from proxy.core.call import Call
    from proxy.core.grant import Grant

MOST_HELD_S: Final = 60.0
"""For no longer is an upstream held by one word, whatever it says: then one call goes, and hears the next."""

RAMP_S: Final = 1.0
RAMP_FOR_S: Final = 4.0
RAMP_FROM: Final = 0.25
"""After a hold calls go at a quarter of the rate before it, at least one a second, and at twice that after
each second, four times: to sixteen times as many, which is no bound any more."""

MOST_ALLOWANCES: Final = 8
"""In one pool. OpenAI tells two, Anthropic four."""

MOST_POOLS: Final = 256
"""Of one upstream: of so many keys, and tools, what was told is kept. Then the oldest is forgotten."""

MIXED: Final = 2.0
SAME: Final = 0.02
"""Words of several wholes in turn are of several models, each with an allowance of its own: which one a call
goes by is not known, and so none is heeded but when to come again. So many changes are forgotten in a hundred
words of the same."""

RATE_S: Final = 5.0
"""Over about so long calls are counted, for where a ramp begins."""

MOST_SILENT: Final = 3
"""So many calls were answered in a row without a word: what was said before is not how it is any more. Who
has an allowance tells of it with every answer."""

LABEL: Final = "as the upstream says"


class Pool:
    """The calls that share what an upstream says is left: of one key, or of one tool."""

    __slots__ = (
        "_counted", "_counted_at", "_next_at", "_ramp_per_s", "allowances", "held", "held_until", "key",
        "mixed", "silent",
    )  # fmt: skip

    def __init__(self, key: str, in_flight: int, now: float) -> None:
        self.key = key
        self.allowances: list[Allowance] = []
        self.silent = 0  # answers without a word since the last
        self.mixed = 0.0  # how often of late a word was about another whole than the one before
        self.held = 0  # calls in flight
        self.held_until = -NEVER
        self._next_at = -NEVER
        self._ramp_per_s = 1.0
        self._counted = float(in_flight)  # calls of late, fading
        self._counted_at = now

    def wait(self, call: Call, service_s: float, kept_s: float, now: float) -> tuple[float, float, str]:
        """How long a call must wait (0.0: not at all), how much longer one more, and for the want of what."""
        worst_s, step_s, label = 0.0, 0.0, ""
        if now < self.held_until + RAMP_FOR_S:
            step_s = 1.0 / self._ramp_at(now)
            worst_s = max(self.held_until, self._next_at + kept_s) - now
            worst_s, label = (worst_s, LABEL) if worst_s > ROUNDING_S else (0.0, "")
        for allowance in self.allowances if self.mixed < MIXED and self.silent < MOST_SILENT else ():
            cost = allowance.cost(call)
            wait_s = allowance.wait_s(cost, self.held + 1, service_s, kept_s, now)
            if wait_s > worst_s:
                worst_s, step_s = wait_s, max(step_s, allowance.step_s(cost, now))
                label = f"{allowance.limit:g} {allowance.name} {LABEL}"
        return worst_s, step_s, label

    def hold(self, wait_s: float, now: float) -> None:
        """Nobody before then. What is already held for longer stays so."""
        until = now + min(wait_s, MOST_HELD_S)
        if until <= self.held_until:
            return
        if self.held_until < now:
            self._ramp_per_s = max(1.0, RAMP_FROM * self._count(now) / RATE_S)
        self.held_until = self._next_at = until

    def begun(self, now: float) -> None:
        """One goes."""
        self.held += 1
        self._counted = self._count(now) + 1.0
        self._counted_at = now
        if now < self.held_until + RAMP_FOR_S:
            self._next_at = max(now, self._next_at) + 1.0 / self._ramp_at(now)

    def idle(self, now: float) -> bool:
        """Is there nothing to be lost, were it forgotten?"""
        return not self.held and now >= self.held_until

    def _ramp_at(self, now: float) -> float:
        over_s = min(RAMP_FOR_S, max(0.0, now - self.held_until))
        return float(self._ramp_per_s * 2.0 ** int(over_s / RAMP_S))

    def _count(self, now: float) -> float:
        return float(self._counted * 0.5 ** ((now - self._counted_at) / RATE_S)) if self._counted else 0.0


class Mark:
    """What one pool had spent when a call went, that call too: what went later its answer does not count."""

    __slots__ = ("costs", "pool", "spent", "weighed", "weights")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.costs: list[float] = []
        self.spent: list[float] = []
        self.weighed: list[float] = []
        self.weights: list[float] = []


class Told:
    """All pools of one upstream, by the key that a call carries (`Call.pool`), and by tool."""

    __slots__ = ("_name", "_pools", "share")

    def __init__(self, name: str) -> None:
        self._name = name
        self._pools: dict[str, Pool] = {}
        self.share = 1.0

    def divide(self, replicas: int) -> None:
        """So many replicas have together what each of them hears of."""
        self.share = 1.0 / max(1, replicas)
        for pool in self._pools.values():
            for allowance in pool.allowances:
                allowance.share = self.share

    def pools_of(self, call: Call) -> list[Pool]:
        """Those that a call goes by."""
        pools = self._pools
        found = [pools[call.pool]] if call.pool in pools else []
        if call.tool and (of_tool := pools.get(_tool(call))) is not None:
            found.append(of_tool)
        return found

    def pools(self) -> list[Pool]:
        """All of them, the oldest first."""
        return list(self._pools.values())

    def lacks(
        self, call: Call, pool: Pool, service_s: float, kept_s: float, now: float, *, booked: bool
    ) -> Shortfall | None:
        """What a call must wait for. What is kept for holders of tickets is not kept from one `booked`."""
        wait_s, step_s, label = pool.wait(call, service_s, kept_s, now)
        if not wait_s:
            return None
        # `kept`: what one lacks another may find, who asks for fewer tokens, or holds a ticket.
        return Shortfall(pool.key, Reason.BUCKET_EMPTY, wait_s, step_s, label, kept=not booked)

    def begun(self, grant: Grant) -> None:
        """A call goes under this grant."""
        now = grant.at
        marks: list[Mark] = []
        for pool in self.pools_of(grant.call):
            mark = Mark(pool)
            pool.begun(now)
            for allowance in pool.allowances:
                cost, weight = allowance.cost(grant.call), allowance.weight(grant.call)
                if not allowance.as_produced:
                    allowance.spend(cost, weight, now)
                mark.costs.append(cost)
                mark.weights.append(weight)
                mark.spent.append(allowance.spent)
                mark.weighed.append(allowance.weighed)
            marks.append(mark)
        grant.marks = marks

    def ended(self, grant: Grant, outcome: Outcome, now: float) -> None:
        """It has ended; one that was not used has cost nothing."""
        for mark in grant.marks:
            mark.pool.held -= 1
            for at, allowance in enumerate(mark.pool.allowances[: len(mark.costs)]):
                if allowance.as_produced:
                    allowance.produced(grant.answered_bytes, now)
                elif outcome is UNUSED:
                    allowance.refund(mark.costs[at], mark.weights[at])
        grant.marks = NO_MARKS

    def hear_nothing(self, call: Call) -> Pool | None:
        """A call was answered well and without a word. Returns the pool that it went by, if there is one."""
        pool = self._pools.get(call.pool)
        if pool is not None:
            pool.silent += 1
        return pool

    def hear(self, grant: Grant, word: Word, in_flight: int, now: float) -> Pool:
        """What the upstream said with the answer to this call. Returns the pool that it is about."""
        call = grant.call
        pool = self._pool(call, in_flight, now, of_tool=word.tool)
        if word.said:
            pool.silent = 0
        mark = next((mark for mark in grant.marks if mark.pool is pool), None)
        names = [allowance.name for allowance in pool.allowances]
        for said in word.said:
            if said.name in names:
                index = names.index(said.name)
            elif len(pool.allowances) < MOST_ALLOWANCES:
                index = len(names)
                names.append(said.name)
                pool.allowances.append(Allowance(said, self.share, now))
            else:
                continue
            allowance = pool.allowances[index]
            if allowance.limit and said.limit is not None and said.limit != allowance.limit:
                pool.mixed = min(2.0 * MIXED, pool.mixed + 1.0)
            else:
                pool.mixed = max(0.0, pool.mixed - SAME)
            if mark is not None and index < len(mark.spent):
                spent, weighed = mark.spent[index], mark.weighed[index]
            else:  # it went before anything was heard: all others in flight may have gone after it
                others = 0 if allowance.as_produced else max(0, in_flight - 1)
                spent, weighed = allowance.spent - others * allowance.cost(call), allowance.weighed
            allowance.hear(said, spent, weighed, grant.at, now)
        if word.holds and word.wait_s:
            pool.hold(word.wait_s, now)
        return pool

    def _pool(self, call: Call, in_flight: int, now: float, *, of_tool: bool) -> Pool:
        name = _tool(call) if of_tool and call.tool else call.pool
        pool = self._pools.get(name)
        if pool is None:
            if len(self._pools) >= MOST_POOLS:
                idle = next((each for each, old in self._pools.items() if old.idle(now)), None)
                del self._pools[next(iter(self._pools)) if idle is None else idle]
            scope = f"tool:{call.route}/{call.tool}" if of_tool and call.tool else f"upstream:{self._name}"
            pool = self._pools[name] = Pool(f"told/{self._name}/{name}|{scope}", in_flight, now)
        return pool


def _tool(call: Call) -> str:
    return f"tool:{call.route}/{call.tool}"
