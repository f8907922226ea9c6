"""The tools that wait, or fail, apart from the rest of their route: with a queue or a breaker of their own.

A tool's own queue is its own lanes of the waiting room: whoever waits for a slow tool takes no place of the
others, and is no pressure on them. A tool's own breaker learns of what the tool does; the breaker of its
upstream, which is well, learns of its answers alone. All else is the upstream's: one cap, one pool, one order
of priorities and of callers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from proxy.core.breaker import CLOSED, OPEN, Machine
from proxy.core.call import Call
from proxy.core.cap import UNBOUNDED, Cap
from proxy.core.claims import TOOL
from proxy.core.grant import Grant
from proxy.core.guarded import Guarded
from proxy.core.plan import ANY_TOOL, Plans
from proxy.core.policy import RoutePolicy, ToolPolicy
from proxy.core.target import Target
from proxy.core.verdict import FAILED, IGNORED, Outcome
from proxy.core.watch import Watch

MOST_APART: Final = 128
"""Tools of one route that are told apart under `*`, for callers may make up any number of names; beyond it
those that come share one queue and one breaker. OpenAI takes so many tools in one request at most."""

MOST_LOOKED_AT: Final = 8
"""Of the tools used least lately, to find one that may be forgotten."""

Key = tuple[str, str, str]
"""Route, tool, upstream: a fallback may serve what its first choice does not."""


class Tool(Guarded):
    """One tool of a route at one upstream. `label` is what it is configured as: its name, or `*`.

    `route` holds the terms on which its calls wait: its own, or those of its route. Ask `wait_s`, then tell
    of what `begun`, was `answered` and is to `settle`, as an upstream is told of the same grants.
    """

    __slots__ = ("label", "name", "policy", "route", "scope", "target", "waits_apart")

    def __init__(
        self, key: Key, policy: ToolPolicy, route: RoutePolicy, target: Target, machine: Machine
    ) -> None:
        super().__init__(Cap(f"{TOOL}{key[0]}/{key[1]}", UNBOUNDED), machine)
        self.name = key[1]
        self.scope = self.cap.key
        self.target = target
        self.adopt(policy, route)

    def adopt(self, policy: ToolPolicy, route: RoutePolicy) -> None:
        """Follow a new policy of the tool and its route; what was counted stays."""
        self.policy = policy
        self.label = self.name if self.name in route.tools else ANY_TOOL
        self.waits_apart = policy.queue is not None
        self.route = route
        if policy.queue is not None:
            # No route has a name with a slash: the lanes are this tool's alone.
            self.route = replace(
                route, name=f"{route.name}/{self.name}", queue=policy.queue, scope=self.scope
            )
        self.adopt_breaker(policy.breaker)
        self.cap.shared = policy.slots if policy.slots is not None and policy.enforce else 0
        self._fit()

    @property
    def is_idle(self) -> bool:
        """Has it nothing in flight, and a breaker that is closed, if any? Then it may be forgotten."""
        return not self._held and (self.breaker is None or self.breaker.phase == CLOSED)

    def wait_s(self, call: Call, now: float) -> float:
        """0.0 when a call may go as far as its breaker knows; else how long to stay away."""
        if self.breaker is None or not (wait_s := self.breaker.wait_s(now, call.rank, call.is_retry)):
            return 0.0
        return self.breaker.told_s(wait_s, now)

    def browns_out(self, call: Call, now: float) -> bool:
        """As of a `Breaker`."""
        return self.breaker is not None and self.breaker.browns_out(call.rank, now)

    def begun(self, grant: Grant) -> None:
        """A call goes under this grant, which gets the turn of the tool's breaker."""
        super().begun(grant)
        self._held += 1
        if self.breaker is not None:
            grant.own_turn = self.breaker.enter(grant.at, grant.call.rank, grant.call.is_retry)

    def answered(self, grant: Grant, silent_s: float, now: float) -> str | None:
        """A good answer to a call has begun. Returns why the breaker moved, or None."""
        self._unanswered.over(grant)
        if self.breaker is None:
            return None
        self.breaker.in_flight = self._held
        why = self.breaker.answered(grant.own_turn, silent_s, now)
        self._fit()
        return why

    def settle(self, grant: Grant, outcome: Outcome, now: float) -> str | None:
        """A call ended. Returns why the breaker moved, or None."""
        self._held -= 1
        self._unanswered.over(grant)
        if self.breaker is None:
            return None
        if outcome is FAILED and grant.unsent:
            outcome = IGNORED  # it never got as far as the tool
        silent_s = now - grant.at if grant.silent_s is None else grant.silent_s
        self.breaker.in_flight = self._held
        why = self.breaker.settle(
            grant.own_turn, outcome, silent_s, now, began_at=grant.at, answered=grant.answered
        )
        self._fit()
        return why

    def notice(self, now: float) -> str | None:
        """Has it gone silent? Returns why the breaker moved, or None."""
        if self.breaker is None or (why := self.breaker.notice(now)) is None:
            return None
        self._fit()
        return why

    def _fit(self) -> None:
        slots = self.policy.slots
        if slots is None:  # then its slow start ends where its upstream does
            ramps = self.breaker is not None and self.breaker.ramp.on
            slots = self.target.cap.slots if ramps else UNBOUNDED
        self.fit(slots)


class Tools:
    """All tools of one gate that are set apart, found by their calls: those named, and MOST_APART a route."""

    __slots__ = ("_machine", "_named", "_others", "_plans", "_watch")

    def __init__(self, machine: Callable[[str], Machine], plans: Plans, watch: Watch) -> None:
        self._watch = watch
        self._machine = machine
        self._plans = plans
        self._named: dict[Key, Tool] = {}
        self._others: dict[str, OrderedDict[Key, Tool]] = {}  # by route; the least lately used first

    def terms_of(self, call: Call, target: Target, route: RoutePolicy, now: float) -> RoutePolicy:
        """The terms on which a call may wait: of its tool, where that is set apart, or of its route."""
        tool = self._of(call, target, route) if route.sets_apart else None
        call.apart = tool
        if tool is None:
            return route
        self._watch.look_at(tool, now)
        return tool.route

    def _of(self, call: Call, target: Target, route: RoutePolicy) -> Tool | None:
        if not call.tool:
            return None
        policy = route.tools.get(call.tool)
        key = (route.name, call.tool, target.name)
        if policy is not None:
            if not policy.is_apart:
                return None
            tool = self._named.get(key)
            if tool is None:
                tool = self._named[key] = self._new(key, policy, route, target)
            return tool
        policy = route.tools.get(ANY_TOOL)
        return None if policy is None or not policy.is_apart else self._other(key, policy, route, target)

    def adopt(self, routes: Mapping[str, RoutePolicy]) -> None:
        """Follow new policies. What is set apart no longer is forgotten, once its last call has ended."""
        tools = [*self._named.values(), *(tool for each in self._others.values() for tool in each.values())]
        self._named, self._others = {}, {}
        for tool in tools:
            name, upstream = tool.scope.removeprefix(TOOL).partition("/")[0], tool.target.name
            route = routes.get(name)
            policy = None if route is None else route.tools.get(tool.name) or route.tools.get(ANY_TOOL)
            if route is None or policy is None or not policy.is_apart:
                continue
            tool.adopt(policy, route)
            key = (name, tool.name, upstream)
            if tool.label == ANY_TOOL:
                self._others.setdefault(name, OrderedDict())[key] = tool
            else:
                self._named[key] = tool

    def of_route(self, route: str) -> Iterator[Tool]:
        """All of one route that are known by now."""
        for key, tool in self._named.items():
            if key[0] == route:
                yield tool
        yield from self._others.get(route, {}).values()

    def _other(self, key: Key, policy: ToolPolicy, route: RoutePolicy, target: Target) -> Tool:
        others = self._others.get(route.name)
        if others is None:
            others = self._others[route.name] = OrderedDict()
        tool = others.get(key)
        if tool is None:
            shared = (route.name, ANY_TOOL, target.name)
            if len(others) >= MOST_APART and not self._forget_one(others):
                key = shared
                tool = others.get(key)
            if tool is None:
                tool = others[key] = self._new(key, policy, route, target)
        others.move_to_end(key)
        return tool

    def _forget_one(self, others: OrderedDict[Key, Tool]) -> bool:
        """Forget a tool of which nothing is lost but counts. False where each of the oldest is needed."""
        oldest: list[Key] = []
        for key in others:
            if len(oldest) == MOST_LOOKED_AT:
                break
            oldest.append(key)
        for key in oldest:
            if others[key].is_idle:
                del others[key]
                self._plans.forget()  # they hold its cap
                return True
        return False

    def _new(self, key: Key, policy: ToolPolicy, route: RoutePolicy, target: Target) -> Tool:
        return Tool(key, policy, route, target, self._machine(f"{key[0]}/{key[1]}"))


def worst_of(tools: Iterable[Tool]) -> Tool | None:
    """The one whose breaker is farthest from closed; of equals the one with the most failures."""
    worst: Tool | None = None
    worst_is = (-1, -1)
    for tool in tools:
        breaker = tool.breaker
        if breaker is not None:
            phase = 2 if breaker.phase == OPEN else 0 if breaker.phase == CLOSED else 1
            if (is_so := (phase, breaker.window.failed)) > worst_is:
                worst, worst_is = tool, is_so
    return worst
