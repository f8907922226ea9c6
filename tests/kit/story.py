"""Stories: what happens at the gate, told as a product owner would tell it.

    story.cap(1).queue(1)
    story >> arrives("a", "background") << admitted("a")
    story >> arrives("b", "background") << waits("b")
    story >> arrives("c", "critical") << refused("b", Reason.DISPLACED) << waits("c")
    story >> ends("a") << admitted("c")

`>>` makes something happen to the real gate, over the real store and breaker, on a clock of its own; `<<`
says what came of it. What came of it and was not said fails the story at the next `>>` and at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from proxy.core.book import Ticket
from proxy.core.call import Call
from proxy.core.events import BreakerMoved, Event
from proxy.core.gate import Gate
from proxy.core.grant import Grant
from proxy.core.policy import (
    BreakerPolicy,
    BucketPolicy,
    CallerPolicy,
    CapPolicy,
    PausePolicy,
    Per,
    Policy,
    QueuePolicy,
    QuotaPolicy,
    RetryBudgetPolicy,
    RoutePolicy,
    ToolPolicy,
    Unit,
    UpstreamPolicy,
)
from proxy.core.used import Used
from proxy.core.verdict import Outcome, Reason, Refusal
from proxy.core.waiting import Waiter
from proxy.stores.breakers import BreakerMachine
from proxy.stores.memory import MemoryStore
from tests.kit.clock import ManualClock

CLASSES = ("critical", "normal", "background")
NEVER_SHED = (2.0, 2.0, 2.0)
PLENTY = 1000


def bucket(
    rate_per_s: float, burst: float = 1.0, per: Per = Per.CALLER, key: str | None = None
) -> BucketPolicy:
    """A bucket; its label is what a refusal shows."""
    label = f"{rate_per_s:g} requests/s"
    return BucketPolicy(f"bucket/{per}" if key is None else key, per, rate_per_s, burst, label)


def tokens(rate_per_s: float, burst: float, per: Per = Per.CALLER, key: str | None = None) -> BucketPolicy:
    """A bucket of tokens."""
    label = f"{rate_per_s:g} tokens/s"
    return BucketPolicy(f"tokens/{per}" if key is None else key, per, rate_per_s, burst, label, Unit.TOKENS)


def quota(amount: int, window_s: int, per: Per = Per.CALLER) -> QuotaPolicy:
    """A quota."""
    return QuotaPolicy(f"quota/{per}/{window_s}", per, amount, window_s, f"{amount} requests/{window_s}s")


def breaker(**changed: Any) -> BreakerPolicy:
    """A breaker that trips at half of four calls, for 5 seconds, and closes after two probes."""
    stated = BreakerPolicy(
        failure_ratio=0.5,
        slow_call_s=60.0,
        slow_ratio=0.8,
        window_s=30.0,
        minimum_calls=4,
        open_for_s=5.0,
        probes=2,
    )
    return replace(stated, **changed)


@dataclass(frozen=True)
class Happens:
    """Something to do to a story."""

    words: str
    act: Callable[[Story], None]


@dataclass(frozen=True)
class Came:
    """A verdict as it is said or as it came: `reason` of a refusal, `told` when the seconds matter."""

    kind: str
    name: str
    reason: Reason | None = None
    told: float | None = None

    def is_said_by(self, said: Came) -> bool:
        """Does `said` describe this?"""
        same = (self.kind, self.name, self.reason) == (said.kind, said.name, said.reason)
        return same and (said.told is None or abs((self.told or 0.0) - said.told) < 1e-6)


class Story:
    """One gate with one upstream `api` and one route `chat`, unlimited until told otherwise."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.events: list[Event] = []
        self._upstream = UpstreamPolicy("api", CapPolicy("upstream:api", PLENTY), None, None)
        self._route = RoutePolicy("chat", QueuePolicy(0, 10.0), NEVER_SHED)
        self._callers: dict[str, CallerPolicy] = {}
        self._gate: Gate | None = None
        self._names: dict[int, str] = {}
        self._grants: dict[str, Grant] = {}
        self._waiters: dict[str, Waiter] = {}
        self._came: list[Came] = []
        self.tickets: dict[str, Ticket] = {}  # of those who were refused: under the same name they return
        self.told: dict[str, Refusal] = {}  # what was told last under each name
        self._happened = "the beginning"

    # ── the setting ─────────────────────────────────────────────────────────────────────────────────

    def cap(self, slots: int) -> Story:
        """At most so many in flight to the upstream."""
        return self._upstream_with(cap=CapPolicy("upstream:api", slots))

    def queue(self, size: int, max_age_s: float = 10.0, max_bytes: float = float("inf")) -> Story:
        """So many may wait, so long."""
        return self._route_with(queue=QueuePolicy(size, max_age_s, max_bytes=max_bytes))

    def buckets(self, *buckets: BucketPolicy) -> Story:
        """Allowances per time."""
        return self._route_with(buckets=buckets)

    def quotas(self, *quotas: QuotaPolicy) -> Story:
        """Allowances per window."""
        return self._route_with(quotas=quotas)

    def tools(self, **slots: int) -> Story:
        """Caps per tool; `any` stands for `*`."""
        named = {"*" if name == "any" else name: ToolPolicy(count) for name, count in slots.items()}
        return self._route_with(tools=named)

    def tools_apart(self, **policies: ToolPolicy) -> Story:
        """Tools with a queue or a breaker of their own; `any` stands for `*`."""
        named = {"*" if name == "any" else name: policy for name, policy in policies.items()}
        return self._route_with(tools=named)

    def callers(self, **slots: int) -> Story:
        """Caps per caller; `any` stands for `*`."""
        named = {"*" if name == "any" else name: CallerPolicy(count) for name, count in slots.items()}
        self._callers = named
        return self

    def shed_at(self, *pressures: float) -> Story:
        """From which pressure each class is shed."""
        return self._route_with(shed_at=pressures)

    def breaker(self, policy: BreakerPolicy | None) -> Story:
        """What counts as down."""
        return self._upstream_with(breaker=policy)

    def pause_when(self, above_s: float, for_s: float, *priorities: str) -> Story:
        """Which classes are held while answers begin late."""
        ranks = frozenset(CLASSES.index(priority) for priority in priorities)
        return self._upstream_with(pause=PausePolicy(above_s, for_s, ranks))

    def retry_budget(self, ratio: float, floor_per_minute: float) -> Story:
        """How many retries are paid for."""
        return self._upstream_with(retry_budget=RetryBudgetPolicy(ratio, floor_per_minute / 60))

    @property
    def gate(self) -> Gate:
        """The gate under these policies."""
        if self._gate is None:
            self._gate = Gate(self._policy(), MemoryStore(), BreakerMachine, self.events.append)
        return self._gate

    def _policy(self) -> Policy:
        return Policy(CLASSES, {"chat": self._route}, {"api": self._upstream}, self._callers)

    def _route_with(self, **changed: Any) -> Story:
        self._route = replace(self._route, **changed)
        return self

    def _upstream_with(self, **changed: Any) -> Story:
        self._upstream = replace(self._upstream, **changed)
        return self

    # ── what happens, and what came of it ───────────────────────────────────────────────────────────

    def __rshift__(self, happens: Happens) -> Story:
        self.finish()
        self._happened = happens.words
        happens.act(self)
        return self

    def __lshift__(self, said: Came) -> Story:
        for came in self._came:
            if came.is_said_by(said):
                self._came.remove(came)
                return self
        raise AssertionError(f"after {self._happened}: {said} was said, {self._came or 'nothing'} came")

    @property
    def given_up(self) -> list[str]:
        """The calls that were given up since this was last asked: they hang."""
        hung = [self._names[id(grant.call)] for grant in self.gate.watch.hung]
        self.gate.watch.hung.clear()
        return hung

    def finish(self) -> None:
        """Nothing came that was not said."""
        if self._came:
            raise AssertionError(f"after {self._happened}: nobody said {self._came}")

    @property
    def breaker_phases(self) -> list[str]:
        """The phases the breaker moved to, in order."""
        return [event.new for event in self.events if isinstance(event, BreakerMoved)]

    def offer(self, name: str, call: Call, *, may_wait: bool) -> None:
        """Let the gate decide about a call; `arrives` calls this."""
        self._names[id(call)] = name
        verdict = self.gate.offer(call, "api", self.clock(), may_wait=may_wait)
        self.tell()
        if isinstance(verdict, Waiter):
            self._waiters[name] = verdict
            self._came.append(Came("waits", name))
        else:
            self._note(call, verdict)

    def settle(self, name: str, outcome: Outcome, used_tokens: float | None = None) -> None:
        """End what was granted; `ends` calls this."""
        self.gate.settle(
            self._grants.pop(name),
            outcome,
            self.clock(),
            used=None if used_tokens is None else Used(used_tokens),
        )
        self.tell()

    def answer(self, name: str) -> None:
        """An answer begins; `is_answered` calls this."""
        grant = self._grants[name]
        self.gate.answered(grant, self.clock() - grant.at, self.clock())
        self.tell()

    def leave(self, name: str) -> None:
        """A waiting caller goes; `leaves` calls this."""
        self.gate.leave(self._waiters.pop(name), self.clock())
        self.tell()

    def pass_time(self, seconds: float) -> None:
        """Let time pass as the timer of admission would: from one `next_at` to the next."""
        until = self.clock() + seconds
        while (at := self.gate.next_at()) <= until:
            self.clock.set(max(at, self.clock()))
            self.gate.advance(self.clock())
            self.tell()
        self.clock.set(until)

    def adopt(self) -> None:
        """Reload with the setting as it is now; `reloads` calls this."""
        self.gate.adopt(self._policy(), self.clock())
        self.tell()

    def drain(self) -> None:
        """Begin to drain; `drains` calls this."""
        self.gate.drain(self.clock())
        self.tell()

    def tell(self) -> None:
        """Take what was decided about the waiters."""
        for waiter in self.gate.take_decided():
            assert waiter.verdict is not None, "told of a verdict that is none"
            self._waiters.pop(self._names[id(waiter.call)], None)
            self._note(waiter.call, waiter.verdict)

    def _note(self, call: Call, verdict: Grant | Refusal) -> None:
        name = self._names[id(call)]
        if isinstance(verdict, Grant):
            self._grants[name] = verdict
            self._came.append(Came("admitted", name))
        else:
            self._came.append(Came("refused", name, verdict.reason, verdict.retry_after_s))
            self.told[name] = verdict
            if verdict.ticket is not None:
                self.tickets[name] = verdict.ticket


def arrives(
    name: str,
    priority: str = "normal",
    *,
    caller: str = "anyone",
    run: str = "",
    tool: str = "",
    retry: bool = False,
    within: float = float("inf"),
    may_wait: bool = True,
    tokens: float = 0.0,
    weight: float = 1.0,
    size: int = 0,
) -> Happens:
    """A call comes in. `within` is its deadline in seconds from now, `tokens` what it is likely to cost."""

    def act(story: Story) -> None:
        now = story.clock()
        call = Call(
            route="chat",
            caller=caller,
            run=run,
            tool=tool,
            rank=CLASSES.index(priority),
            arrived_at=now,
            deadline=now + within,
            is_retry=retry,
            tokens=tokens,
            until=now + within,
            weight=weight,
            size=size,
            ticket=story.tickets.pop(name, None),
        )
        story.offer(name, call, may_wait=may_wait)

    return Happens(f"{name} arrived", act)


def ends(name: str, outcome: Outcome = Outcome.SUCCEEDED, *, used_tokens: float | None = None) -> Happens:
    """A call that was admitted ends; `used_tokens` is what its answer told."""
    return Happens(f"{name} {outcome}", lambda story: story.settle(name, outcome, used_tokens))


def is_answered(name: str) -> Happens:
    """The answer to a call that was admitted begins, and goes on."""
    return Happens(f"{name} was answered", lambda story: story.answer(name))


def leaves(name: str) -> Happens:
    """The caller of a waiting call disconnects."""
    return Happens(f"{name} left", lambda story: story.leave(name))


def after(seconds: float) -> Happens:
    """Time passes."""
    return Happens(f"{seconds:g}s", lambda story: story.pass_time(seconds))


def reloads() -> Happens:
    """The gate adopts the setting as the story has changed it since."""
    return Happens("a reload", Story.adopt)


def drains() -> Happens:
    """The proxy is asked to end."""
    return Happens("the drain began", Story.drain)


def admitted(name: str) -> Came:
    """The call got its grant."""
    return Came("admitted", name)


def waits(name: str) -> Came:
    """The call stands in the queue."""
    return Came("waits", name)


def refused(name: str, reason: Reason, told: float | None = None) -> Came:
    """The call was refused, and told to come back after `told` seconds where that is said."""
    return Came("refused", name, reason, told)
