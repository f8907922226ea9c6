"""A batch of JSON-RPC messages (MCP 2025-03-26): each call in it is admitted or refused by itself.

What is admitted goes on in one request, with all that is never refused; what is refused gets its own answer
among those of the upstream. Each call admitted holds its own permits until that answer ends.

A batch waits for room once, and only while it holds nothing: permits must not idle while one of its calls
stands in a queue. So of two calls to a tool that takes one at a time the second is refused. It goes to the
first choice of its route's ladder, and is not sent twice: a part of it may have been done. A repeat is known
message by message, by the digest of each: what was refused in a batch may return alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from proxy.admission import Lease
from proxy.core.call import Call
from proxy.core.events import Refused
from proxy.core.leash import Leash
from proxy.core.repeats import of_any_length
from proxy.core.verdict import FAILED, IGNORED, OVERLOADED, UNUSED, Reason, Refusal
from proxy.core.waiting import Waiter
from proxy.core.word import Word
from proxy.dialects import digest
from proxy.dialects.base import Ask
from proxy.dialects.mcp import refuse_all, reply_to
from proxy.dialects.meter import readable
from proxy.recognise import MOST_TOOL_CHARS, Arrival, Serving, complaint
from proxy.retrying import conclude
from proxy.upstream import Merged, Request, Result, UnsendableRequest, heed, looked_at, relay
from proxy.wire import Wire

JSON: Final = [(b"content-type", b"application/json")]


class Leashes(Leash):
    """Of one request that several calls share: what is told of it is told to each, and any may end it."""

    __slots__ = ("_leases",)

    def __init__(self, leases: list[Lease]) -> None:
        self._leases = leases

    def answered(self, silent_s: float) -> None:
        """A good answer has begun."""
        for lease in self._leases:
            lease.answered(silent_s)

    def heard(self, word: Word) -> float | None:
        """The upstream's own word: each is told, and the request waits as long as the last of them."""
        waits_s = [wait_s for lease in self._leases if (wait_s := lease.heard(word)) is not None]
        return max(waits_s) if waits_s else None

    def on_cut(self, callback: Callable[[], None] | None) -> None:
        """Whom to tell when one of the calls is to be given up."""
        for lease in self._leases:
            lease.on_cut(callback)


class Batch:
    """One batch on its way: `sent` are the messages that go on, `refused` those that do not."""

    def __init__(self, wire: Wire, arrival: Arrival, serving: Serving, clock: Callable[[], float]) -> None:
        assert arrival.ask is not None, "a batch was read"  # noqa: S101
        self._wire = wire
        self._arrival = arrival
        self._serving = serving
        self._clock = clock
        self._ask = arrival.ask
        self._upstream = arrival.route.ladder[0].upstream
        self._calls: list[tuple[Call, Ask]] = []  # that were admitted
        self._leases: list[Lease] = []
        self.sent: list[Ask] = []
        self.refused: list[tuple[Ask, Refusal]] = []

    async def serve(self) -> None:
        """Carry it to an end. Raises CallerGone."""
        try:
            with ExitStack() as held:
                if not await self._admit(held):
                    return  # the caller left while it waited
                if not self.sent:
                    self._refuse_all()
                    return
                result, merged = await self._relay()
        except UnsendableRequest as error:
            answer = complaint(error, self._arrival.route, self._serving)
            self._wire.answer(answer.status, answer.headers, answer.body)
            return
        self._end(result, merged)

    async def _admit(self, held: ExitStack) -> bool:
        """Ask for each call, in their order. False when the caller left meanwhile."""
        admission, name = self._serving.admission, self._upstream.name
        may_wait = True
        for part in self._ask.parts:
            if part.exempt:
                self.sent.append(part)
                continue
            call = self._call(part)
            verdict: Lease | Refusal | Waiter | None
            verdict = admission.enter(call, name, may_wait=may_wait and not self._leases)
            if isinstance(verdict, Waiter):
                may_wait = False
                verdict = await admission.wait(verdict, self._wire)
            if isinstance(verdict, Refusal):
                self._note(part, call, verdict)
            elif verdict is None:
                return False
            else:
                self._leases.append(held.enter_context(verdict))
                self._calls.append((call, part))
                self.sent.append(part)
        return True

    def _call(self, part: Ask) -> Call:
        """One of its calls: as the one that the whole was taken for, but for its tool and its past."""
        whole, now = self._arrival.call, self._clock()
        call = whole.like(route=whole.route, tool=part.tool[:MOST_TOOL_CHARS], arrived_at=whole.arrived_at)
        repeats = self._serving.repeats
        if self._arrival.route.counts_retries and repeats:
            trace = repeats.match(of_any_length(self._arrival.key), digest(part.raw), now)
            if trace is not None:
                call.is_retry, call.ticket = not trace.invites(now), trace.ticket
        return call

    def _note(self, part: Ask, call: Call, refusal: Refusal) -> None:
        """A call was refused: tell it, and remember who was told to come back when."""
        now, serving = self._clock(), self._serving
        serving.telemetry.emit(Refused(call, refusal, self._upstream.name, now - call.arrived_at))
        self.refused.append((part, refusal))
        retry_after_s = refusal.retry_after_s
        if retry_after_s is not None and self._arrival.route.counts_retries:
            key = of_any_length(self._arrival.key)
            serving.repeats.refused(key, digest(part.raw), retry_after_s, now, ticket=refusal.ticket)

    def _refuse_all(self) -> None:
        route = self._arrival.route
        answer = refuse_all(self.refused, self._ask, refuse_as=route.refuse_as, stop_status=route.stop_status)
        self._wire.answer(answer.status, answer.headers, answer.body)

    async def _relay(self) -> tuple[Result, Merged | None]:
        """Send what goes on, in the caller's own bytes where that is all of it."""
        wire = self._wire
        body, headers, merged = wire.take_arrived(), wire.headers, None
        if self._upstream.texts is not None:
            headers = readable(headers)
        if self.refused:
            body = b"[" + b",".join([part.raw for part in self.sent]) + b"]"
            headers, merged = readable(headers), Merged(wire, self._replies(self.refused))
        request = Request(
            method=wire.method,
            target=self._upstream.target(self._arrival.rest, wire.query),
            headers=headers,
            body=body,
            length=len(body),
            has_body=True,
            peer=wire.peer,
            scheme=wire.scheme,
        )
        for lease in self._leases:
            lease.outcome = IGNORED  # what is cancelled from here on says nothing
        leashes = Leashes(self._leases)
        # Whose limit a text tells of is known only where there is one call.
        texts = self._upstream.texts if len(self._leases) == 1 else None
        downstream = looked_at(wire if merged is None else merged, texts)
        try:
            result = await relay(
                self._upstream,
                request,
                downstream,
                clock=self._clock,
                deadline=self._arrival.until,
                leash=leashes,
            )
        except UnsendableRequest:
            for lease in self._leases:
                lease.outcome = UNUSED  # nothing was sent
            raise
        heed(downstream, result, leashes)
        for lease in self._leases:
            conclude(lease, result)
        return result, merged

    def _end(self, result: Result, merged: Merged | None) -> None:
        """All is settled: tell it, and answer what has no answer yet."""
        wire, failed = self._wire, result.outcome is FAILED or result.outcome is OVERLOADED
        for call, part in self._calls:
            self._serving.telemetry.relayed(
                call,
                self._upstream.name,
                outcome=result.outcome,
                status=result.status,
                total_s=self._clock() - call.arrived_at,
                first_byte_s=result.first_byte_s,
                reason=result.reason,
                detail=result.detail,
            )
            if failed and self._arrival.route.counts_retries:
                self._serving.repeats.failed(self._arrival.key, digest(part.raw), self._clock())
        if result.gone:
            wire.give_up()
        elif not result.started or (merged is not None and merged.unread):
            failures = [(part, self._failure(result)) for part in self.sent if part.ids]
            replies = self._replies([*self.refused, *failures])
            if replies:
                wire.answer(200, JSON, b"[" + b",".join(replies) + b"]")
            else:
                wire.answer(202, [], b"")
        elif not result.complete:
            cuts = [self._arrival.route.dialect.cut(self._failure(result), part) or b"" for part in self.sent]
            wire.cut(b"".join(cuts) or None)

    def _failure(self, result: Result) -> Refusal:
        reason = result.reason or Reason.UPSTREAM_FAILED
        gate = self._serving.admission.gate
        return gate.refuse_failed(self._arrival.call, self._upstream.name, reason, self._clock())

    def _replies(self, refused: list[tuple[Ask, Refusal]]) -> list[bytes]:
        refuse_as = self._arrival.route.refuse_as
        return [reply_to(part, refusal, refuse_as=refuse_as) for part, refusal in refused]
