"""READ ME FIRST: one call, from top to bottom.

A request becomes a call (`recognise`), asks to be admitted (`admission`, which asks the gate in `core/`),
is relayed under a lease (`upstream`), and is answered: by its upstream, or by us in the words of its own
API (`dialects`). Whatever a call holds is held by the one `with` in this file.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from proxy.admission import Lease
from proxy.advising import complete_advice
from proxy.answering import CHEAP_BYTES, last_event, refusal_answer
from proxy.batch import Batch
from proxy.core.events import Refused
from proxy.core.repeats import TELLING_BYTES
from proxy.core.verdict import FAILED, IGNORED, OVERLOADED, UNUSED, Kind, Reason, Refusal, kind_of
from proxy.core.waiting import Waiter
from proxy.dialects.base import Malformed
from proxy.outgoing import is_too_large, pool, request_of, rewrites
from proxy.recognise import Arrival, Serving, complaint, mark_of, recognise
from proxy.retrying import Failed, conclude, may_ask_another, may_repeat
from proxy.routing import Rung
from proxy.upstream import (
    CallerGone,
    Downstream,
    Held,
    Result,
    UnsendableRequest,
    heed,
    looked_at,
    relay,
)
from proxy.wire import SMALL_BYTES, TooLarge, Wire


class Pipeline:
    """Serves calls. `serving` may be replaced between two calls; a running call keeps its own.

    `chance` is from 0 to 1, and different each time.
    """

    def __init__(
        self,
        serving: Serving,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.serving = serving
        self._clock = clock
        self._chance = chance
        self._running = 0
        self._emptied: asyncio.Event | None = None  # while somebody waits for it

    async def idle(self) -> None:
        """Wait until no call is running."""
        while self._running:
            self._emptied = self._emptied or asyncio.Event()
            await self._emptied.wait()

    async def serve(self, wire: Wire) -> None:
        """Carry one request to an end. Returns when its caller has been answered, or has gone."""
        self._running += 1
        try:
            arrival = await recognise(wire, self.serving, self._clock())
            if isinstance(arrival, Arrival) and arrival.not_before:
                await self._hold(wire, arrival)
            if not isinstance(arrival, Arrival):
                wire.answer(arrival.status, arrival.headers, arrival.body)
            elif arrival.ask is not None and arrival.ask.parts:
                await Batch(wire, arrival, self.serving, self._clock).serve()
            else:
                await self._serve(wire, arrival, self.serving)
        except CallerGone:
            pass  # nobody is left to be answered, and what was held was given back on the way here
        finally:
            self._running -= 1
            if not self._running and self._emptied is not None:
                self._emptied.set()
                self._emptied = None

    async def _serve(self, wire: Wire, arrival: Arrival, serving: Serving) -> None:
        """Try the rungs of the route's ladder, the first choice and then the cheaper answers; then once more
        where it failed, if the route says so; else say the first "no", the one about what was asked for.
        """
        no: Refusal | Failed | None = None
        failed: Failed | None = None  # the first that did
        try:
            for rung in arrival.route.ladder:
                if rung.model and is_too_large(wire, arrival, serving):
                    continue
                said = await self._try(wire, arrival, rung, serving)
                if said is None:
                    return
                no = no or said
                if isinstance(said, Failed):
                    failed = failed or said
                    if not may_ask_another(wire, arrival):
                        break
            if failed is not None and await self._again(wire, arrival, failed, serving):
                return
        except (Malformed, TooLarge, UnsendableRequest) as error:
            answer = complaint(error, arrival.route, serving)
            wire.answer(answer.status, answer.headers, answer.body)
            return
        if isinstance(no, Refusal):
            self._refuse(wire, arrival, no, serving)
        elif no is not None:
            self._pass_on(wire, arrival, no, serving)

    async def _hold(self, wire: Wire, arrival: Arrival) -> None:
        """Let a call wait that repeats at once one whose answer was cut, holding nothing. Raises CallerGone.

        A drain ends it. Whether the retry budget pays is asked when it is over.
        """
        hold_s = min(arrival.not_before, arrival.call.deadline) - self._clock()
        if hold_s > 0 and not arrival.exempt:
            self.serving.telemetry.held(arrival.call.route)
            if not await self.serving.admission.pause(hold_s, wire):
                raise CallerGone

    async def _try(
        self, wire: Wire, arrival: Arrival, rung: Rung, serving: Serving, again: Failed | None = None
    ) -> Refusal | Failed | None:
        """One rung: be admitted, and be relayed under the lease. None when the call has ended.

        `again` is the attempt that this one repeats.
        """
        call, route, name = arrival.call, arrival.route, rung.upstream.name
        held: Held | None = None
        if arrival.exempt and not (arrival.opens and serving.admission.gate.draining):
            result = await relay(rung.upstream, request_of(wire, arrival, rung), wire, clock=self._clock)
        else:
            # One queue a call: a fallback has room now, or is none.
            may_wait = again is not None or rung is route.ladder[0]
            arrival.goes_to(rung)
            if rung.model and rewrites(arrival):  # read before a permit is held
                await wire.read_all(serving.peek_bytes, idle_s=rung.upstream.idle_s)
            call.pool = pool(wire, rung)
            verdict: Lease | Refusal | Waiter | None
            verdict = serving.admission.enter(call, name, may_wait=may_wait)
            if isinstance(verdict, Waiter):
                verdict = await serving.admission.wait(verdict, wire)
            if isinstance(verdict, Refusal):
                waited_s = self._clock() - call.arrived_at
                serving.telemetry.emit(Refused(call, verdict, name, waited_s))
                return verdict
            if verdict is None:
                return None  # the caller left while it waited
            with verdict as lease:  # settles exactly once, whatever happens below
                lease.counter = arrival.count
                if 0 < (wire.length or 0) <= route.kept_bytes and not wire.is_here(SMALL_BYTES):
                    # Whole, for only so can it be asked again, or its repeat be known. Most prompts come in
                    # several reads.
                    await wire.read_all(SMALL_BYTES, idle_s=rung.upstream.idle_s)
                request = request_of(wire, arrival, rung)
                lease.outcome = IGNORED  # what is cancelled from here on says nothing
                downstream: Downstream = wire
                if route.retries is not None and may_repeat(wire, arrival, sent=True):
                    downstream = held = Held(wire, route.retries)
                downstream = looked_at(downstream, rung.upstream.texts)
                try:
                    result = await relay(
                        rung.upstream,
                        request,
                        downstream,
                        clock=self._clock,
                        deadline=arrival.until,
                        leash=lease,
                    )
                except UnsendableRequest:
                    lease.outcome = UNUSED  # nothing was sent
                    raise
                heed(downstream, result, lease)
                conclude(lease, result)
                arrival.ended(result)
        if again is not None:
            again.repeated = result
        return self._relayed(wire, arrival, rung, result, held, serving)

    def _relayed(
        self,
        wire: Wire,
        arrival: Arrival,
        rung: Rung,
        result: Result,
        held: Held | None,
        serving: Serving,
    ) -> Failed | None:
        """A call was relayed: tell it. What is left of it, where its caller has got nothing and is there."""
        call, now = arrival.call, self._clock()
        serving.telemetry.relayed(
            call,
            rung.upstream.name,
            outcome=result.outcome,
            status=result.status,
            total_s=now - call.arrived_at,
            first_byte_s=result.first_byte_s,
            reason=result.reason,
            detail=result.detail,
        )
        if result.gone:
            wire.give_up()
            return None
        if held is not None and not held.holding:
            held = None
        if held is not None or not result.started:
            if result.outcome is not UNUSED:
                call.paid, call.paid_model = True, call.model  # for the next attempt
            return Failed(rung, result, held)
        self._remember(wire, arrival, result, serving)
        if not result.complete:
            self._cut(wire, arrival, rung, result, serving)
        return None  # an upstream's own "no" has been relayed as it came

    async def _again(self, wire: Wire, arrival: Arrival, failed: Failed, serving: Serving) -> bool:
        """Ask once more where a call failed, after a pause in which it holds nothing. True when it has ended.

        A retry pays the retry budget and stands behind the first attempts of its class.
        """
        call, retries, result = arrival.call, arrival.route.retries, failed.result
        if retries is None or not retries.cover(result) or not may_repeat(wire, arrival, sent=result.sent):
            return False
        name = failed.rung.upstream.name
        told_s = failed.held.told_s if failed.held is not None else None
        pause_s = retries.pause_s(told_s, self._chance())
        if not serving.admission.would_retry(call, name, pause_s):
            serving.telemetry.retried(call.route, "given_up")
            return False
        said: Refusal | Failed | None = None
        if await serving.admission.pause(pause_s, wire):
            call.is_retry = True
            said = await self._try(wire, arrival, failed.rung, serving, failed)
        repeated = failed.repeated
        if isinstance(said, Refusal):
            serving.telemetry.retried(call.route, "refused")
        elif repeated is not None and not repeated.gone:
            serving.telemetry.retried(call.route, repeated.outcome)
        else:
            serving.telemetry.retried(call.route, "left")
            self._remember(wire, arrival, result, serving)  # should its caller come back
        return said is None

    def _pass_on(self, wire: Wire, arrival: Arrival, failed: Failed, serving: Serving) -> None:
        """Tell a caller what became of its call: the upstream's own answer where one is held, else ours."""
        rung, result, held = failed.rung, failed.result, failed.held
        self._remember(wire, arrival, result, serving)
        if held is None:
            self._refuse(wire, arrival, self._failure(arrival, rung, result, serving), serving)
            return
        held.release()
        if not result.complete:
            self._cut(wire, arrival, rung, result, serving)

    def _cut(self, wire: Wire, arrival: Arrival, rung: Rung, result: Result, serving: Serving) -> None:
        """End an answer that broke off, so that the caller can tell."""
        refusal = self._failure(arrival, rung, result, serving)
        wire.cut(last_event(wire, arrival, refusal))

    def _failure(self, arrival: Arrival, rung: Rung, result: Result, serving: Serving) -> Refusal:
        """Our word for what an upstream failed to do."""
        reason = result.reason or Reason.UPSTREAM_FAILED
        gate = serving.admission.gate
        return gate.refuse_failed(arrival.call, rung.upstream.name, reason, self._clock())

    def _remember(self, wire: Wire, arrival: Arrival, result: Result, serving: Serving) -> None:
        """A call ended. If it failed, its repeat, should it come, is one that the retry budget pays for."""
        failed = result.outcome is FAILED or result.outcome is OVERLOADED
        if failed and arrival.route.counts_retries:
            known_by_length = arrival.key[3] >= TELLING_BYTES  # and too long to be digested
            mark = None if known_by_length else mark_of(wire, serving)
            told = result.told
            if told is not None and told.retry_after_s is not None:  # it has a place there, at that time
                tokens, now = arrival.call.tokens, self._clock()
                ticket = told.ticket
                left_s = told.retry_after_s if ticket is None else max(0.0, ticket.due_at - now)
                serving.repeats.refused(arrival.key, mark, left_s, now, tokens, ticket)
                return
            is_cut = result.started and not result.complete
            serving.repeats.failed(arrival.key, mark, self._clock(), arrival.call.tokens, cut=is_cut)

    def _refuse(self, wire: Wire, arrival: Arrival, refusal: Refusal, serving: Serving) -> None:
        """Say no in the words of the caller's own API, and remember who was told to come back when."""
        route = arrival.route
        if kind_of(refusal.reason) is not Kind.UPSTREAM:  # then it is remembered as a failure
            retry_after_s = refusal.retry_after_s
            if retry_after_s is not None and route.counts_retries:
                mark = None
                if wire.is_here(CHEAP_BYTES):
                    wire.take_arrived()
                    mark = mark_of(wire, serving)
                tokens = arrival.call.tokens
                now, ticket = self._clock(), refusal.ticket
                serving.repeats.refused(arrival.key, mark, retry_after_s, now, tokens, ticket)
        if refusal.advice is not None or route.advises is not None:
            complete_advice(arrival, refusal, serving, self._clock())
        answer = refusal_answer(wire, arrival, refusal)
        wire.answer(answer.status, answer.headers, answer.body)
