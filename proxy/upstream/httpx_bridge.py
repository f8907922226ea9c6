"""The other way out, for what the relay does not speak: HTTP/2, and outbound proxies. httpx carries it.

The same contract as `relay.py`, and the same head, pool, spans and judgement; a call costs some ten times
as much. One thing httpx cannot do: it does not look at an answer before all of the request is sent.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import httpx

from proxy.core.leash import Leash
from proxy.core.verdict import Reason
from proxy.upstream.address import Address
from proxy.upstream.contract import SAFE_METHODS, CallerGone, Downstream, Headers, Request, Result
from proxy.upstream.httpx_line import Broken, Line, LineAnswer, Opening
from proxy.upstream.judge import is_good, judge, left, no_room
from proxy.upstream.patience import (
    HUNG,
    NEVER,
    SEND_BODY,
    SEND_HEAD,
    SEND_REQUEST,
    TAKE_ANSWER,
    TAKE_REQUEST,
    Patience,
)
from proxy.upstream.upload import Upload

if TYPE_CHECKING:
    from proxy.upstream.target import Upstream

CONNECT: Final = "no connection"
PIECE_BYTES: Final = 64 * 1024
"""A body that is here is handed over in pieces of this size: one that is taken is a sign of life."""


class Bridge:
    """Carries the calls to one upstream through httpx."""

    def __init__(
        self,
        upstream: Upstream,
        address: Address,
        context: ssl.SSLContext | None,
        *,
        http2: bool,
        proxy: str | None,
    ) -> None:
        self.upstream = upstream
        self._opening = Opening(address, context, http2=http2, proxy=proxy)

    async def relay(
        self,
        request: Request,
        downstream: Downstream,
        *,
        clock: Callable[[], float],
        deadline: float,
        leash: Leash | None = None,
    ) -> Result:
        """As `relay.relay`."""
        upstream = self.upstream
        fields = fields_of(upstream.head.write(request))
        result = Result()
        result.ear = upstream.ear
        ends_at = NEVER if upstream.total_s is None else clock() + upstream.total_s
        body, upload = request.body or b"", None
        if request.body is None and request.has_body and request.length != 0:
            upload = Upload(downstream, request.length, framed=False)
            try:
                body = await upload.begin(within_s=min(upstream.idle_s, min(deadline, ends_at) - clock()))
            except CallerGone as gone:
                return left(result, str(gone))
        repeatable = request.method in SAFE_METHODS and upload is None
        fresh = False
        while True:
            exchange = Exchange(self, request, fields, body, upload, downstream, result, leash)
            await exchange.run(clock, deadline=deadline, ends_at=ends_at, fresh=fresh)
            if not (repeatable and exchange.was_stale):
                return no_room(result) if exchange.found_no_room else judge(exchange, result, clock)
            fresh = True

    async def line(self, *, fresh: bool) -> Line:
        """An idle line, unless it must be a fresh one, or a new one; waits where no other may be opened."""
        pool = self.upstream.pool
        line: Line | None = None if fresh else pool.take()
        if line is None and pool.full:
            line = await pool.room()
        return line or Line(pool, self._opening)


class Exchange(httpx.AsyncByteStream):
    """One request and its answer on one line; itself the request's body. `judge` reads what became of it."""

    def __init__(
        self,
        bridge: Bridge,
        request: Request,
        fields: Headers,
        body: bytes | memoryview,
        upload: Upload | None,
        downstream: Downstream,
        result: Result,
        leash: Leash | None = None,
    ) -> None:
        """`body` is all of the body, or with `upload` the first piece of it."""
        self._bridge = bridge
        self._request = request
        self._fields = fields
        self._body = bytes(body)
        self._upload = upload
        self._downstream = downstream
        self._result = result
        self._leash = leash
        self._idle_s = bridge.upstream.idle_s
        self._patience = Patience(self._expired, idle_s=self._idle_s)
        self._ends_at = NEVER
        self._running: asyncio.Task[None] | None = None
        self._line: Line | None = None
        self._sends = 0
        self._asked_at: float | None = None  # for a connection
        self._lost = False
        self.sent_at: float | None = None
        self.answer: LineAnswer | None = None
        self.bytes_out = 0
        self.reason: Reason | None = None
        self.detail = ""
        self.gone = False
        self.stalled = False
        self.late = False
        self.found_no_room = False

    @property
    def was_stale(self) -> bool:
        """Did a kept line turn out to be dead before it brought an answer?"""
        return self._result.reused and self._lost and not self._result.started and not self.gone

    async def run(self, clock: Callable[[], float], *, deadline: float, ends_at: float, fresh: bool) -> None:
        """Carry it to an end. Whatever the network does is left in the fields."""
        self._clock = clock
        self._ends_at = ends_at
        self._patience.begin(clock, min(deadline, ends_at))
        self._patience.awaits(CONNECT, self._bridge.upstream.connect_s)
        running = self._running = asyncio.create_task(self._carry(fresh=fresh))
        try:
            self._downstream.on_gone(self._caller_left)
            if self._leash is not None:
                self._leash.on_cut(self._give_up)
            await asyncio.wait((running,))
        finally:
            self._downstream.on_gone(None)  # first: a line in the pool is no longer this caller's to close
            if self._leash is not None:
                self._leash.on_cut(None)
            self._patience.cancel()
            running.cancel()
            (crash,) = await asyncio.gather(running, return_exceptions=True)
        self._is_connected()
        if crash is not None and not isinstance(crash, asyncio.CancelledError):
            raise crash

    async def _carry(self, *, fresh: bool) -> None:
        line = self._line = await self._bridge.line(fresh=fresh)
        line.cut = self._cut
        self._asked_at = self._clock()
        try:
            request, result = self._request, self._result
            result.reused = line.reused
            self.answer = await line.send(request.method, request.target, self._fields, self, self)
            await self._deliver(self.answer)
        except CallerGone as gone:
            self.gone = True
            self.detail = str(gone)
        except Broken as broken:
            self._lost = broken.lost
            self._fail(Reason.UPSTREAM_FAILED, str(broken))
        finally:
            line.cut = None
            if self._result.complete and line.reusable:
                self._bridge.upstream.pool.release(line)
            else:
                await line.closed()

    async def _deliver(self, answer: LineAnswer) -> None:
        """Hand the answer to the caller as it arrives."""
        result, downstream, patience = self._result, self._downstream, self._patience
        result.status = answer.status
        result.first_byte_s = self._clock() - self.sent_at if self.sent_at is not None else 0.0
        result.started = True
        headers = answer.headers
        if self._leash is not None and result.ear is not None:
            headers = result.ear.listen(answer.status, headers, self._leash)
        if self._leash is not None and is_good(answer.status):
            self._leash.answered(result.silent_s + result.first_byte_s)
        patience.deadline = self._ends_at
        patience.awaits(TAKE_ANSWER, self._idle_s)
        downstream.start(answer.status, headers)
        downstream.flush()
        patience.awaits(SEND_BODY, self._idle_s)
        async with aclosing(answer.pieces) as pieces:
            async for piece in pieces:
                patience.awaits(TAKE_ANSWER, self._idle_s)
                self.bytes_out += len(piece)
                downstream.write(piece)
                downstream.flush()
                if downstream.slow:
                    await downstream.drained()
                patience.awaits(SEND_BODY, self._idle_s)
        patience.awaits(TAKE_ANSWER, self._idle_s)
        downstream.end()
        result.complete = not self.gone

    # ── what the line asks and tells ────────────────────────────────────────────────────────────────

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The request's body, no faster than the upstream takes it. Raises CallerGone."""
        patience, upload = self._patience, self._upload
        for at in range(0, len(self._body), PIECE_BYTES):
            patience.awaits(TAKE_REQUEST, self._idle_s)
            yield self._body[at : at + PIECE_BYTES]
        while upload is not None and not upload.finished:
            patience.awaits(SEND_REQUEST, self._idle_s)
            piece = await upload.next()
            patience.awaits(TAKE_REQUEST, self._idle_s)
            if piece:
                yield bytes(piece)

    def connected(self) -> None:
        """There is a connection: the request is sent next.

        httpx may come here twice, with a request that an upstream about to leave did not look at. nginx
        sends no other than a safe one again then, and neither do we.
        """
        self._sends += 1
        if self._sends > 1 and (self._upload is not None or self._request.method not in SAFE_METHODS):
            raise Broken("connection closed", lost=True)
        self._result.sent = True
        if self._line is not None:
            self._result.reused = self._line.reused
        self._is_connected()
        self._patience.awaits(TAKE_REQUEST, self._idle_s)

    def _is_connected(self) -> None:
        """Or it is too late for that: so long the upstream was silent."""
        if self._asked_at is not None:
            self._result.silent_s += self._clock() - self._asked_at
            self._asked_at = None

    def sent(self) -> None:
        """All of the request is sent: the upstream thinks."""
        self.sent_at = self._patience.awaits(SEND_HEAD, self._bridge.upstream.first_byte_s)

    # ── how it ends early ───────────────────────────────────────────────────────────────────────────

    def _caller_left(self) -> None:
        self.gone = True
        if self._line is None:
            self.detail = "the caller left while a connection was opened"
        self._stop()

    def _give_up(self) -> None:
        """The upstream was down since, and answers others: it has forgotten this request."""
        if self.answer is None:
            self._fail(Reason.UPSTREAM_TIMEOUT, HUNG)
            self._stop()

    def _cut(self) -> None:
        self._fail(Reason.UPSTREAM_FAILED, "connection closed")
        self._stop()

    def _expired(self, now: float) -> None:
        """Somebody's turn lasted too long: give the exchange up."""
        lapse = self._patience.lapse(now, self._ends_at)
        self.stalled, self.late = lapse.stalled, lapse.late
        self.found_no_room = self._line is None
        if lapse.stalled:
            self.detail = lapse.detail
        else:
            self._fail(Reason.UPSTREAM_TIMEOUT, lapse.detail)
        self._stop()

    def _fail(self, reason: Reason, detail: str) -> None:
        if self.reason is None and not self.gone and not self.stalled:
            self.reason, self.detail = reason, detail

    def _stop(self) -> None:
        if self._running is not None:
            self._running.cancel()


def fields_of(head: bytes) -> Headers:
    """The fields of a head that RequestHead wrote: one way to say what an upstream is sent, not two."""
    lines = head[:-4].split(b"\r\n")[1:]
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
