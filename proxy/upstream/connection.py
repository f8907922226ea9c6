"""One connection to an upstream: bytes out, an answer in, flow control both ways, and one timer.

It carries one exchange at a time, between `begin` and `end`. What goes wrong is remembered in `reason` and
`detail`, never raised: whoever waits is woken and looks.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from proxy.core.verdict import Reason
from proxy.upstream.answer import BODY, COMPLETE, HEAD, Answer
from proxy.upstream.contract import ONE_READ_BYTES, CallerGone, Downstream
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

if TYPE_CHECKING:
    from proxy.upstream.pool import Pool

MOST_BUFFERED_BYTES: Final = 64 * 1024
"""`stream_buffer` where nothing is stated: from here on the upstream is not read until the caller has taken
what is there, nor the caller until the upstream has (then from `ONE_READ_BYTES` on). One read more may
arrive. Precedents: asyncio's and uvicorn's high-water marks, both 64 KiB; nginx's `proxy_buffers`, 8 of 4 or
8 KiB; Envoy's `per_connection_buffer_limit_bytes`, 1 MiB."""

JOINED_BYTES: Final = 64 * 1024
"""A body up to this size leaves with its head in one write; copying a larger one costs more than a write."""


class Connection(asyncio.Protocol):
    """A connection of `pool`. `bytes_in` counts what was read for the current exchange."""

    __slots__ = (
        "_all_sent", "_drain_waiter", "_ends_at", "_first_byte_s", "_idle_s", "_loop", "_most_buffered",
        "_patience", "_poll", "_pool", "_sink", "_task", "_transport", "_unsent", "_waiter", "_write_paused",
        "answer", "bytes_in", "bytes_out", "detail", "gone", "idle_since", "late", "over", "read_paused",
        "reason", "reused", "sent_at", "stalled",
    )  # fmt: skip

    def __init__(
        self,
        pool: Pool[Connection],
        *,
        first_byte_s: float,
        idle_s: float,
        most_buffered: int = MOST_BUFFERED_BYTES,
    ) -> None:
        self._pool = pool
        self._most_buffered = most_buffered
        self._first_byte_s = first_byte_s
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._transport = cast("asyncio.Transport", None)  # until connection_made, before which nobody has us
        self._waiter: asyncio.Future[None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None
        self._poll: select.poll | None = None
        self._patience = Patience(self._expired, idle_s=idle_s)
        self._write_paused = False
        self.answer = Answer()
        self.reused = False
        self.idle_since = 0.0
        self._forget()

    def _forget(self) -> None:
        self._unsent = 0
        self._task: asyncio.Task[Any] | None = None
        self._sink: Downstream | None = None
        self._all_sent = False
        self.read_paused = False
        self.bytes_in = 0
        self.bytes_out = 0
        self.sent_at: float | None = None
        self.reason: Reason | None = None
        self.detail = ""
        self.over = False  # nothing more will come
        self.gone = False  # the caller left
        self.stalled = False  # the caller's turn lasted too long
        self.late = False  # the time is over, and not by the upstream's fault

    # ── one exchange ────────────────────────────────────────────────────────────────────────────────

    def begin(
        self, *, bodiless: bool, clock: Callable[[], float], deadline: float, ends_at: float = NEVER
    ) -> Answer:
        """Start an exchange; the answer is filled as it arrives.

        `deadline` is for the head of the answer, `ends_at` for all of it.
        """
        self._forget()
        self._ends_at = ends_at
        self._patience.begin(clock, min(deadline, ends_at))
        self.answer.reset(bodiless=bodiless)
        if self._transport.is_closing():
            self._fail(Reason.UPSTREAM_FAILED, "closed before the request was sent")
            self.over = True
        return self.answer

    def write(self, head: bytes, body: bytes | memoryview = b"") -> None:
        """Send the head, and the body or the beginning of it; nothing once the connection is lost."""
        transport = self._transport
        if transport.is_closing():
            return
        if len(body) <= JOINED_BYTES:
            transport.write(head + body if body else head)
        else:
            transport.writelines((head, body))

    def write_on(self, piece: bytes | memoryview) -> None:
        """Send more of the body; nothing once the connection is lost."""
        if not self._transport.is_closing():
            self._transport.write(piece)

    def sent(self) -> None:
        """All of the request was written: the upstream thinks from here, or from when it has taken it."""
        self._all_sent = True
        if self._write_paused:
            self._upstream_takes()
        elif self.answer.phase == HEAD:
            self.sent_at = self._patience.awaits(SEND_HEAD, self._first_byte_s)

    async def drained(self) -> None:
        """Wait until the upstream has taken enough of what was written, or the connection is lost."""
        while self._write_paused and not self._transport.is_closing():
            self._upstream_takes()
            self._drain_waiter = self._loop.create_future()
            await self._drain_waiter

    def take(self) -> bytes:
        """What has arrived of the body; the upstream is read again if it was not."""
        piece = self.answer.take()
        self.bytes_out += len(piece)
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()
        return piece

    def changed(self) -> asyncio.Future[None]:
        """Await this until something happened: bytes, an end, a fault, or the caller gone."""
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def hand_over(self) -> None:
        """The head is there, or more of the body: it is the caller's turn.

        The deadline of the call is met: it is about the start of the answer. What is left is the total.
        """
        self._task = None
        self._patience.deadline = self._ends_at
        if self.answer.phase == COMPLETE:
            self._patience.awaits_idly(TAKE_ANSWER)
        else:
            self._patience.awaits(TAKE_ANSWER, self._idle_s)

    def waits_for_caller(self) -> None:
        """This task is about to wait for the caller; it is cancelled if that lasts too long.

        Also where the upstream's connection is lost, or an earlier time was over and found nobody to cancel.
        """
        self._task = asyncio.current_task()
        self._patience.awaits(TAKE_ANSWER, self._idle_s)

    def passed_on(self, sink: Downstream) -> asyncio.Future[None]:
        """It is the upstream's turn to go on: what comes of the answer is handed to `sink` as it arrives.

        Await this until that is no longer all there is to do: the answer ended, or the caller became slow.
        """
        self._task = None
        self._patience.awaits(SEND_BODY, self._idle_s)
        self._sink = sink
        return self.changed()

    def caller_sends(self) -> None:
        """It is the caller's turn to go on with its request; once the answer has begun, only that counts."""
        if self.answer.phase == HEAD:
            self._patience.awaits(SEND_REQUEST, self._idle_s)

    def _upstream_takes(self) -> None:
        if self.answer.phase == HEAD:
            self._unsent = self._transport.get_write_buffer_size()
            self._patience.awaits(TAKE_REQUEST, self._idle_s)

    def caller_left(self) -> None:
        """The caller disconnected: the upstream's work is for nobody."""
        self.gone = True
        self.abort()

    def give_up(self) -> None:
        """The upstream was down since, and answers others: it has forgotten this request."""
        if self.answer.phase == HEAD:
            self._fail(Reason.UPSTREAM_TIMEOUT, HUNG)
            self.abort()

    def end(self) -> None:
        """The exchange is over: back to the pool if it ended well on both sides, else closed."""
        self._task = None
        answer = self.answer
        paused = self._write_paused or self.read_paused
        if answer.phase == COMPLETE and answer.keep and self._all_sent and not (paused or self.gone):
            self._patience.rest()
            self._pool.release(self)
        else:
            self._patience.end()
            self.abort()

    # ── its life ────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        is_stated = self._most_buffered != MOST_BUFFERED_BYTES
        self._transport.set_write_buffer_limits(self._most_buffered if is_stated else ONE_READ_BYTES)
        self._pool.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is None:  # else it is the caller's turn still
            self._patience.cancel()
        if self.answer.phase != COMPLETE:
            self._fail(Reason.UPSTREAM_FAILED, "connection reset" if exc is not None else "connection closed")
        self.answer.keep = False
        self.answer.release()
        self.over = True
        self._pool.discard(self)
        self._resume_writer()
        self.wake()

    def abort(self) -> None:
        """Close at once, whatever is still to be sent."""
        self.answer.keep = False
        self.over = True
        self._transport.abort()
        self._resume_writer()
        self.wake()

    def close(self) -> None:
        """Close an idle connection politely."""
        self._patience.end()
        self._transport.close()

    @property
    def closing(self) -> bool:
        """Lost, or about to be."""
        return self._transport.is_closing()

    def readable(self) -> bool:
        """Has something arrived that the event loop has not handed over? On an idle connection: its end."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    # ── what the transport says ─────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        answer = self.answer
        if answer.phase == COMPLETE:
            self.abort()  # nobody asked for it
            return
        self.bytes_in += len(data)
        answer.feed(data)
        if answer.fault:
            self._fail(Reason.UPSTREAM_FAILED, answer.fault)
            self.abort()
        elif answer.phase != HEAD:
            sink = self._sink
            if sink is not None and answer.phase == BODY and self._pass_on(sink):
                return
            if answer.buffered >= self._most_buffered and not self.read_paused:
                self.read_paused = True
                self._transport.pause_reading()
            self.wake()

    def _pass_on(self, sink: Downstream) -> bool:
        """An event of a stream leaves in the turn in which it came, and nobody is woken for it.

        False: the caller has become slow, or is gone, and whoever waits must look.
        """
        if piece := self.take():
            try:
                sink.write(piece)
            except CallerGone:
                return False  # `caller_left` was called, or is about to be
            sink.flush()
        self._patience.awaits(SEND_BODY, self._idle_s)
        return not sink.slow

    def eof_received(self) -> None:
        self.answer.eof()
        self._pool.forget(self)
        if self.answer.phase == COMPLETE:
            self.wake()  # the transport closes itself
        else:
            self._fail(Reason.UPSTREAM_FAILED, "connection closed")
            self.abort()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._all_sent and self._patience.turn == TAKE_REQUEST:
            self.sent_at = self._patience.awaits(SEND_HEAD, self._first_byte_s)
        self._resume_writer()

    def _resume_writer(self) -> None:
        waiter, self._drain_waiter = self._drain_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def wake(self, _: object = None) -> None:
        """Let who waits in `changed` look again."""
        self._sink = None
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, reason: Reason, detail: str) -> None:
        if self.reason is None and not self.gone and not self.stalled:
            self.reason, self.detail = reason, detail

    def _progress(self) -> bool:
        """Has the upstream taken some of the request since the last look?"""
        before, self._unsent = self._unsent, self._transport.get_write_buffer_size()
        return self._unsent < before

    def _expired(self, now: float) -> None:
        """Somebody's turn lasted too long: give the exchange up."""
        patience = self._patience
        if now < patience.deadline and patience.turn == TAKE_REQUEST and self._progress():
            patience.awaits(TAKE_REQUEST, self._idle_s)
            return
        task, self._task = self._task, None
        lapse = patience.lapse(now, self._ends_at)
        self.stalled, self.late = lapse.stalled, lapse.late
        if lapse.stalled:
            self.detail = lapse.detail
        else:
            self._fail(Reason.UPSTREAM_TIMEOUT, lapse.detail)
        self.abort()
        if task is not None:
            task.cancel()
