"""READ ME FIRST: one call, from top to bottom.

A request becomes a call (`recognise`), asks to be admitted (`admission`, which asks the gate in `core/`),
is relayed under a lease (`upstream`), and is answered: by its upstream, or by us in the words of its own
API (`dialects`). Whatever a call holds is held by the one `with` in this file.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from proxy.admission import Lease
from proxy.core.call import Call
from proxy.core.events import Refused
from proxy.core.repeats import TELLING_BYTES
from proxy.core.verdict import FAILED, IGNORED, OVERLOADED, UNUSED, Kind, Reason, Refusal, kind_of
from proxy.core.waiting import Waiter
from proxy.dialects.base import Malformed
from proxy.dialects.tokens import Meter, readable
from proxy.recognise import Arrival, Serving, complaint, mark_of, recognise
from proxy.routing import Rung
from proxy.upstream import CREDENTIALS, CallerGone, Request, Result, UnsendableRequest, relay
from proxy.wire import SMALL_BYTES, TooLarge, Wire

CHEAP_BYTES: Final = 16 * 1024
"""Up to this size a refused call's body is known by its digest; of a larger one that costs too much."""

SAFE_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})

MODEL_DIALECTS: Final = frozenset({"openai", "anthropic"})
"""A model call that failed may be asked of another upstream: it changed nothing. A tool call may have."""


class Pipeline:
    """Serves calls. `serving` may be replaced between two calls; a running call keeps its own."""

    def __init__(self, serving: Serving, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.serving = serving
        self._clock = clock
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
            if isinstance(arrival, Arrival):
                await self._serve(wire, arrival, self.serving)
            else:
                wire.answer(arrival.status, arrival.headers, arrival.body)
        except CallerGone:
            pass  # nobody is left to be answered, and what was held was given back on the way here
        finally:
            self._running -= 1
            if not self._running and self._emptied is not None:
                self._emptied.set()
                self._emptied = None

    async def _serve(self, wire: Wire, arrival: Arrival, serving: Serving) -> None:
        """Try the rungs of the route's ladder, the first choice and then the cheaper answers; else refuse."""
        refusal: Refusal | None = None
        for rung in arrival.route.ladder:
            if rung.model and (wire.length is None or wire.length > serving.peek_bytes):
                continue  # too large to be rewritten for another model, or nobody knows
            try:
                no = await self._try(wire, arrival, rung, serving)
            except (Malformed, TooLarge, UnsendableRequest) as error:
                answer = complaint(error, arrival.route, serving)
                wire.answer(answer.status, answer.headers, answer.body)
                return
            if no is None:
                return
            refusal = refusal or no  # the first "no" is the one about what was asked for
            if kind_of(no.reason) is Kind.UPSTREAM and not _may_ask_another(wire, arrival):
                break
        if refusal is not None:
            self._refuse(wire, arrival, refusal, serving)

    async def _try(self, wire: Wire, arrival: Arrival, rung: Rung, serving: Serving) -> Refusal | None:
        """One rung: be admitted, and be relayed under the lease. None when the call has ended."""
        call, name = arrival.call, rung.upstream.name
        if arrival.exempt and not (arrival.opens and serving.admission.gate.draining):
            result = await relay(rung.upstream, _request(wire, arrival, rung), wire, clock=self._clock)
        else:
            # One queue a call: a fallback has room now, or is none.
            may_wait = rung is arrival.route.ladder[0]
            if rung.model:  # to be rewritten: read before a permit is held
                await wire.read_all(serving.peek_bytes, idle_s=rung.upstream.idle_s)
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
                if len(arrival.route.ladder) > 1 and 0 < (wire.length or 0) <= SMALL_BYTES:
                    # Kept whole, for only so can another rung be asked. Most prompts come in several reads.
                    await wire.read_all(SMALL_BYTES, idle_s=rung.upstream.idle_s)
                request = _request(wire, arrival, rung)
                lease.outcome = IGNORED  # what is cancelled from here on says nothing
                try:
                    result = await relay(
                        rung.upstream, request, wire, clock=self._clock, deadline=arrival.until
                    )
                except UnsendableRequest:
                    lease.outcome = UNUSED  # nothing was sent
                    raise
                lease.outcome = result.outcome
                lease.silent_s = result.silent_s
                lease.used_tokens = _used(wire, call, result, serving)
        return self._relayed(wire, arrival, name, result, serving)

    def _relayed(
        self, wire: Wire, arrival: Arrival, name: str, result: Result, serving: Serving
    ) -> Refusal | None:
        """A call was relayed: tell it, and what its caller still lacks. A refusal where it got no answer."""
        call, now = arrival.call, self._clock()
        serving.telemetry.relayed(
            call,
            name,
            outcome=result.outcome,
            status=result.status,
            total_s=now - call.arrived_at,
            first_byte_s=result.first_byte_s,
            reason=result.reason,
            detail=result.detail,
        )
        if result.outcome is FAILED or result.outcome is OVERLOADED:
            self._remember(wire, arrival, serving, now)
        if result.gone:
            wire.give_up()
            return None
        if result.complete:
            return None  # an upstream's own "no" has been relayed as it came
        reason = result.reason or Reason.UPSTREAM_FAILED
        refusal = serving.admission.gate.refuse_failed(call, name, reason, now)
        if not result.started:
            call.paid = True  # for the next rung
            return refusal
        wire.cut(arrival.route.dialect.cut(refusal, arrival.ask))
        return None

    def _remember(self, wire: Wire, arrival: Arrival, serving: Serving, now: float) -> None:
        """A call failed: its repeat, should it come, is one that the retry budget pays for."""
        if arrival.route.counts_retries:
            known_by_length = arrival.key[3] >= TELLING_BYTES  # and too long to be digested
            mark = None if known_by_length else mark_of(wire, serving)
            serving.repeats.failed(arrival.key, mark, now, arrival.call.tokens)

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
                serving.repeats.refused(arrival.key, mark, retry_after_s, self._clock(), tokens)
        answer = route.dialect.refuse(
            refusal, arrival.ask, refuse_as=route.refuse_as, stop_status=route.stop_status
        )
        wire.answer(answer.status, answer.headers, answer.body)


def _request(wire: Wire, arrival: Arrival, rung: Rung) -> Request:
    """What to send to a rung's upstream. Raises Malformed.

    A small body that has arrived is read here; any other is pulled by the relay. Where tokens are counted,
    the answer will be read for them as it passes.
    """
    body = wire.arrived_whole() if wire.is_here(SMALL_BYTES) else wire.body
    if rung.model:
        body = arrival.route.dialect.with_model(wire.body or b"", rung.model)
    headers = wire.headers
    if rung.foreign:
        headers = [field for field in headers if field[0] not in CREDENTIALS]
    if arrival.call.tokens:
        headers = readable(headers)
        wire.meter = Meter()
    return Request(
        method=wire.method,
        target=rung.upstream.target(arrival.rest, wire.query),
        headers=headers,
        body=body,
        length=wire.length if body is None else len(body),
        has_body=wire.has_body,
        peer=wire.peer,
        scheme=wire.scheme,
    )


def _used(wire: Wire, call: Call, result: Result, serving: Serving) -> float | None:
    """The tokens that a call used, where its whole answer came and told; None: the estimate stands."""
    if wire.meter is None:
        return None
    used = wire.meter.used() if result.complete else None
    serving.telemetry.tokens(call.route, call.tokens, used)
    return used


def _may_ask_another(wire: Wire, arrival: Arrival) -> bool:
    """May a call that failed before its first byte be sent to the next rung, without doing a thing twice?"""
    replayable = wire.body is not None or wire.is_here(SMALL_BYTES)
    harmless = wire.method in SAFE_METHODS or arrival.route.dialect.name in MODEL_DIALECTS
    return replayable and harmless
