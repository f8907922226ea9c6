"""Waiting to be admitted: the only asyncio around `core/` and a store.

The gate decides; here a call waits for its verdict, a timer wakes the gate when its next waiter is due, and
whatever happens to the waiting task (its caller disconnects, it is cancelled, the proxy drains) ends its
place in the queue, or gives back what was granted too late to be used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from proxy.begun import Turn
from proxy.core.call import Call
from proxy.core.gate import Gate
from proxy.core.grant import Grant
from proxy.core.hearing import hear
from proxy.core.leash import Leash
from proxy.core.policy import Policy
from proxy.core.rounding import NEVER
from proxy.core.used import Counter, Used
from proxy.core.verdict import UNUSED, Outcome, Refusal
from proxy.core.waiting import Waiter
from proxy.core.word import Word

LEAST_TIMER_S = 0.001
"""uvloop's timers have a grain of one millisecond; a shorter one would fire at once and too early."""


class Departure(Protocol):
    """Who is waited for: `wire.Wire`, as far as admission needs it."""

    @property
    def gone(self) -> bool: ...
    def on_gone(self, callback: Callable[[], None] | None) -> None: ...


class Lease(Leash):
    """What one call holds while it runs. `with` it: it is settled exactly once, whatever happens.

    Set `outcome` before the end; what ends without one never reached its upstream, and gets all back. Set
    `counter` where tokens are counted: asked at the end, however that comes, it says what was used; without
    one the estimate stands. `silent_s` is how long the upstream let the call wait for an answer; without it,
    for as long as the lease was held. `crowded` and `answered_bytes` as of a `Grant`.
    `told`: the upstream itself has refused the call, and this is what to say of it.
    Nothing is awaited at either end: no cancellation can come between the end of the call and the settling.
    """

    __slots__ = (
        "_admission", "_grant", "answered_bytes", "counter", "crowded", "outcome", "silent_s", "told",
    )  # fmt: skip

    def __init__(self, admission: Admission, grant: Grant) -> None:
        self._admission = admission
        self._grant = grant
        self.outcome = UNUSED
        self.counter: Counter | None = None
        self.silent_s: float | None = None
        self.crowded = False
        self.answered_bytes = 0
        self.told: Refusal | None = None

    def heard(self, word: Word) -> float | None:
        """The upstream said what is left, or to come again later; `told` is what to say of that here."""
        self.told = self._admission.heard(self._grant, word)
        return None if self.told is None else self.told.retry_after_s

    def answered(self, silent_s: float) -> None:
        """A good answer has begun: breaker, budgets and those who wait need not wait for its end to know."""
        self._admission.answered(self._grant, silent_s)

    def never_sent(self) -> None:
        """It failed before there was a connection to the upstream: no fault of the tool that was called."""
        self._grant.unsent = True

    def on_cut(self, callback: Callable[[], None] | None) -> None:
        """Whom to tell when this call hangs and is to be given up."""
        self._grant.cut = callback

    @property
    def waited_s(self) -> float:
        """How long the call stood in the queue."""
        return self._grant.waited_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._grant.silent_s = self.silent_s
        self._grant.crowded = self.crowded
        self._grant.answered_bytes = self.answered_bytes
        used: Used | None = None
        try:
            if self.counter is not None and self.outcome is not UNUSED:
                used = self.counter.used()
        finally:  # whatever was made of the upstream's words, what is held is given back
            self._admission.settle(self._grant, self.outcome, used)


class Admission:
    """The door of one process."""

    def __init__(self, gate: Gate, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.gate = gate
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER
        self._pauses: set[asyncio.Future[None]] = set()

    def enter(self, call: Call, upstream: str, *, may_wait: bool = True) -> Lease | Refusal | Waiter:
        """Ask to go to `upstream`. Enter the lease, tell the refusal, or `wait`: before any other await."""
        gate = self.gate
        verdict = gate.offer(call, upstream, self._clock(), may_wait=may_wait)
        if gate.has_decided:
            self._tell()
        elif gate.room.size:
            self._arm()  # what somebody waits for now may come sooner, or another thing than before
        if gate.watch.hung:
            self._cut()
        return Lease(self, verdict) if isinstance(verdict, Grant) else verdict

    async def wait(self, waiter: Waiter, caller: Departure) -> Lease | Refusal | None:
        """Stand in the queue, as the policy allows, for a lease to be entered at once, or a refusal.

        None when the caller left meanwhile. A wait that is cancelled leaves nothing behind.
        """
        waiter.reply = reply = Turn(asyncio.get_running_loop())
        self._arm()

        def left() -> None:
            if waiter.verdict is None:
                self.gate.leave(waiter, self._clock())
            _answer(waiter)

        caller.on_gone(left)
        try:
            await reply
        except asyncio.CancelledError:
            self._abandon(waiter)
            raise
        finally:
            caller.on_gone(None)
        if caller.gone:
            self._abandon(waiter)
            return None
        verdict = waiter.verdict
        return Lease(self, verdict) if isinstance(verdict, Grant) else verdict

    def would_retry(self, call: Call, upstream: str, after_s: float) -> bool:
        """Is there a point in asking again `after_s` from now, as far as can be told for free?

        Not where no budget would pay, the breaker stays open, or the answer would be worthless by then.
        """
        now, target = self._clock(), self.gate.targets[upstream]
        if self.gate.draining or now + after_s >= call.deadline or target.retry_wait_s(call, now)[1]:
            return False
        wait_s = target.breaker.wait_s(now) if target.breaker is not None else 0.0
        if call.apart is not None and call.apart.breaker is not None:
            wait_s = max(wait_s, call.apart.breaker.wait_s(now))
        return wait_s <= after_s

    async def pause(self, seconds: float, caller: Departure) -> bool:
        """Let so much time pass, holding nothing, before asking again. False when the caller left meanwhile.

        A drain ends it: whoever asks then is told. A pause that is cancelled leaves nothing behind.
        """
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(max(LEAST_TIMER_S, seconds), _end, over)
        self._pauses.add(over)
        caller.on_gone(lambda: _end(over))
        try:
            await over
        finally:
            timer.cancel()
            self._pauses.discard(over)
            caller.on_gone(None)
        return not caller.gone

    def settle(self, grant: Grant, outcome: Outcome, used: Used | None = None) -> None:
        """End what was granted, and tell whoever was waiting for it. `Lease` calls this."""
        gate = self.gate
        gate.settle(grant, outcome, self._clock(), used=used)
        if gate.has_decided:
            self._tell()
        elif gate.room.size:
            self._arm()
        if gate.watch.hung:
            self._cut()

    def answered(self, grant: Grant, silent_s: float) -> None:
        """The answer to what was granted has begun. `Lease` calls this."""
        self.gate.answered(grant, silent_s, self._clock())
        if self.gate.has_decided:
            self._tell()
        elif self.gate.room.size:
            self._arm()
        if self.gate.watch.hung:
            self._cut()

    def heard(self, grant: Grant, word: Word) -> Refusal | None:
        """The upstream's own word, with the answer to what was granted. A refusal gets a time of its own."""
        refusal = hear(self.gate, grant, word, self._clock())
        if self.gate.has_decided:
            self._tell()
        elif self.gate.room.size:
            self._arm()
        return refusal

    def opened(self, keys: list[str], replicas: int) -> None:
        """A store that so many `replicas` share has answered: serve who waited for it."""
        self.gate.opened(keys, replicas, self._clock())
        self._tell()

    def drain(self) -> None:
        """Refuse whoever waits and whoever comes from now on."""
        self.gate.drain(self._clock())
        self._tell()
        for over in self._pauses:
            _end(over)

    def adopt(self, policy: Policy) -> None:
        """Follow a new policy from now on."""
        self.gate.adopt(policy, self._clock())
        self._tell()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _abandon(self, waiter: Waiter) -> None:
        """Nobody is left to take the verdict: what was granted meanwhile is given back."""
        if isinstance(waiter.verdict, Grant):
            self.settle(waiter.verdict, UNUSED)
        else:
            self.gate.leave(waiter, self._clock())
            self._arm()  # whoever stood behind it may be next at once

    def _tell(self) -> None:
        for waiter in self.gate.take_decided():
            _answer(waiter)
        self._arm()

    def _cut(self) -> None:
        """Give up the calls that hang. Whoever carries one settles it, in a later turn of the event loop."""
        hung = self.gate.watch.hung
        while hung:
            grant = hung.pop()
            if grant.cut is not None:
                grant.cut()

    def _arm(self) -> None:
        at = self.gate.next_at()
        if at >= self._timer_at:
            return  # the timer that is set looks again
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        delay_s = max(LEAST_TIMER_S, at - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._advance)

    def _advance(self) -> None:
        self._timer, self._timer_at = None, NEVER
        self.gate.advance(self._clock())
        self._tell()
        if self.gate.watch.hung:
            self._cut()


def _answer(waiter: Waiter) -> None:
    reply: Turn | None = waiter.reply
    if reply is not None:
        reply.end()


def _end(wait: asyncio.Future[None]) -> None:
    if not wait.done():
        wait.set_result(None)
