"""What a run has left, as far as no store counts it: its time, its agents, whether it was halted.

What is counted (calls, tokens, money, retries) and what is in flight are claims like any other (`rows`): so
they are granted together with all else or not at all, and shared where the store is. What is here each
replica keeps for itself and tells the others (`run_news.py`). It is bounded: nobody is forgotten who was not
away for long enough.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from proxy.core.call import Call
from proxy.core.cap import Cap
from proxy.core.claims import RUN
from proxy.core.hints import Seen
from proxy.core.policy import REQUESTS, QuotaPolicy, RunBudgetPolicy
from proxy.core.run_news import UNTOLD, RunNews
from proxy.core.verdict import Reason, Refusal

ANY_CALLER: Final = "*"

MOST: Final = 50_000
MOST_OF_CALLER: Final = 10_000
"""Runs remembered. A run beyond that does not push another out, which would be a way to a new budget: all of
one caller that come then have one budget together, until there is room again."""

MOST_AGENTS: Final = 200_000
"""Agents remembered, of all runs. Beyond that each call of one that is not counts as an agent of its own."""

MOST_HALTED: Final = 10_000
"""Runs that an operator halted; the one halted first is forgotten first."""

NO_BUDGETS: Final[Mapping[str, RunBudgetPolicy | None]] = {}

BUDGETS: Final = ("calls", "tokens", "money", "retries", "wall_time", "depth", "agents")
"""What of a run can be spent: the names in the configuration, and `Refusal.budget`."""


class Agent:
    """One sub-agent of a run: who started it ("" for the agent that the run began with), and its calls."""

    __slots__ = ("calls", "parent")

    def __init__(self, parent: str) -> None:
        self.parent = parent
        self.calls = 0


class Record:
    """One run: when its first call went, and its last; how many did; its sub-agents by their hash."""

    __slots__ = (
        "agents",
        "began_at",
        "caller",
        "calls",
        "forget_s",
        "is_heard",
        "last_at",
        "told_at",
        "unknown",
    )

    def __init__(self, caller: str, now: float) -> None:
        self.caller = caller
        self.began_at = self.last_at = now
        self.forget_s = 0.0
        self.calls = 0
        self.agents: dict[str, Agent] = {}
        self.unknown = 0  # calls of agents that there was no room to remember
        self.is_heard = False  # other replicas have had calls of it
        self.told_at = UNTOLD

    def depth(self, call: Call, most: int) -> int:
        """How far the call's agent is from the run's first, by the parents seen; at most one beyond `most`.

        Of a parent that was never seen nobody knows the parent: it counts as one of the first's own.
        """
        depth, agent, parent = 0, call.agent, call.parent
        while agent and depth <= most:
            depth += 1
            known = self.agents.get(agent)
            agent, parent = parent or (known.parent if known is not None else ""), ""
        return depth


class RunBudgets:
    """The runs of one process that have a budget. `adopt` the budgets, by caller, when they change."""

    __slots__ = ("_agents", "_by_caller", "_policies", "any", "halted", "news", "records")

    def __init__(self) -> None:
        self.any = False  # has any run a budget, or is any halted? Else no call need ask more
        self._policies = NO_BUDGETS
        self.halted: OrderedDict[str, None] = OrderedDict()
        self._by_caller: dict[str, int] = {}
        self._agents = 0
        self.records: OrderedDict[str, Record] = OrderedDict()  # the last to have had a call last
        self.news: RunNews | None = None  # where other replicas are told

    def adopt(self, policies: Mapping[str, RunBudgetPolicy | None]) -> None:
        """What was counted stays."""
        self._policies = policies
        self.any = bool(policies) or bool(self.halted)

    def of(self, caller: str) -> RunBudgetPolicy | None:
        """The budget of each run of a caller; None where it has none."""
        policies = self._policies
        return policies[caller] if caller in policies else policies.get(ANY_CALLER)

    def charge(self, call: Call, now: float) -> None:
        """Say whose budget a call of a run spends: its run's; its caller's rest, where too many are known."""
        call.charged = ""
        if call.parent == call.agent:  # nobody started itself
            call.parent = ""
        if self.of(call.caller) is not None:
            is_known = self._alive(call.run, now) is not None
            call.charged = call.run if is_known or self._has_room(call.caller, now) else f"{call.caller}/*"

    def stops(self, call: Call, now: float) -> Refusal | None:
        """The free check: was its run halted, or is its time over, or may this agent not be?"""
        if self.halted and call.run in self.halted:
            return Refusal(Reason.RUN_HALTED, RUN + call.run)
        budget = self.of(call.caller) if call.charged else None
        return self.spent(budget, call, now) if budget is not None and budget.enforce else None

    def spent(self, budget: RunBudgetPolicy, call: Call, now: float) -> Refusal | None:
        """Why a call may not go by what is counted here."""
        record = self.records.get(call.charged)
        if record is not None and now - record.began_at >= budget.wall_s:
            return _refusal(call, "wall_time", f"{budget.wall_s:g}s")
        if not call.agent or call.charged != call.run:
            return None
        if budget.depth is not None:
            depth = (record or Record(call.caller, now)).depth(call, budget.depth)
            if depth > budget.depth:
                return _refusal(call, "depth", f"depth {budget.depth}")
        agents = budget.agents
        if agents is None or (record is not None and call.agent in record.agents):
            return None
        count = 0 if record is None else len(record.agents) + record.unknown
        return _refusal(call, "agents", f"{agents} agents") if count >= agents else None

    def admitted(self, call: Call, now: float) -> None:
        """A call was granted."""
        budget = self.of(call.caller)
        if call.charged != call.run or budget is None:
            return
        record = self._alive(call.run, now)
        if record is None:
            record = self._remember(call.run, call.caller, now)
        record.last_at, record.forget_s = now, budget.forget_s
        record.calls += 1
        self.records.move_to_end(call.run)
        is_new = bool(call.agent) and self._count_agent(record, call.agent, call.parent)
        if self.news is not None:
            self.news.called(call.run, record, now, by_new_agent=is_new)

    def hear(self, seen: Seen, said_at: float, now: float) -> None:
        """Another replica has said that it had calls of a run. An agent heard of is never taken back."""
        budget = self.of(seen.caller)
        if budget is None:
            return
        record = self._alive(seen.run, now)
        if record is None:
            if not self._has_room(seen.caller, now):
                return
            record = self._remember(seen.run, seen.caller, now)
            record.last_at = said_at - seen.last_s
        record.is_heard, record.forget_s = True, budget.forget_s
        record.began_at = min(record.began_at, said_at - seen.began_s)
        record.last_at = max(record.last_at, said_at - seen.last_s)
        for agent, parent in seen.agents:
            if agent not in record.agents:
                self._count_agent(record, agent, parent)

    def hear_halted(self, run: str) -> None:
        """An operator has halted it, here or at a replica that tells all."""
        self.halted[run] = None
        self.halted.move_to_end(run)
        if len(self.halted) > MOST_HALTED:
            self.halted.popitem(last=False)
        self.any = True

    def unused(self, call: Call) -> None:
        """What was granted never reached its upstream: as if it had not come."""
        record = self.records.get(call.charged)
        if record is None:
            return
        agent = record.agents.get(call.agent)
        if agent is not None:
            agent.calls -= 1
            if not agent.calls:
                del record.agents[call.agent]
                self._agents -= 1
        record.calls -= 1
        if not (record.calls or record.is_heard):
            self._forget(call.charged, record)

    def halt(self, run: str) -> None:
        """No call of this run goes any more. Those in flight end by themselves."""
        self.hear_halted(run)
        if self.news is not None:
            self.news.halted()

    def _count_agent(self, record: Record, name: str, parent: str) -> bool:
        """It had a call. True where it is a new one."""
        agent = record.agents.get(name)
        is_new = agent is None
        if agent is None:
            if self._agents >= MOST_AGENTS:
                record.unknown += 1
                return False
            agent = record.agents[name] = Agent(parent)
            self._agents += 1
        agent.parent = parent or agent.parent
        agent.calls += 1
        return is_new

    def _remember(self, run: str, caller: str, now: float) -> Record:
        record = self.records[run] = Record(caller, now)
        self._by_caller[caller] = self._by_caller.get(caller, 0) + 1
        return record

    def _alive(self, run: str, now: float) -> Record | None:
        record = self.records.get(run)
        if record is not None and now - record.last_at >= record.forget_s:
            self._forget(run, record)
            return None
        return record

    def _has_room(self, caller: str, now: float) -> bool:
        while self.records:
            run = next(iter(self.records))
            if self._alive(run, now) is not None:
                break
        return len(self.records) < MOST and self._by_caller.get(caller, 0) < MOST_OF_CALLER

    def _forget(self, run: str, record: Record) -> None:
        del self.records[run]
        self._agents -= len(record.agents)
        left = self._by_caller[record.caller] - 1
        if left:
            self._by_caller[record.caller] = left
        else:
            del self._by_caller[record.caller]


def rows(budget: RunBudgetPolicy, call: Call) -> list[tuple[str, QuotaPolicy]]:
    """What a call spends of its run's budget. Who was sent upstream once before is no second call; but each
    attempt is charged for what it used, and a retry is a retry wherever it goes.
    """
    scope = f"|{RUN}{call.charged}"
    spends = []
    for quota in budget.quotas:
        if quota.unit is not REQUESTS:
            if call.tokens:
                spends.append((quota.key + scope, quota))
        elif not call.paid:
            spends.append((quota.key + scope, quota))
    if call.is_retry and budget.retries is not None:
        spends.append((budget.retries.key + scope, budget.retries))
    return spends


def cap_of(slots: int, call: Call) -> Cap:
    """So many permits of a call's run."""
    return Cap(RUN + call.charged, slots, slots)


def _refusal(call: Call, budget: str, limit: str) -> Refusal:
    return Refusal(Reason.RUN_BUDGET_SPENT, RUN + call.run, limit=limit, budget=budget)
