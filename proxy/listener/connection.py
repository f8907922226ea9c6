"""One caller's connection: requests served one at a time and in their order, and how it ends."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

from uvicorn.server import ServerState

from proxy.begun import Begun
from proxy.core.verdict import End
from proxy.listener.bounds import Bounds
from proxy.listener.crowd import Guest, make_room
from proxy.listener.hangup import Hangup
from proxy.listener.last_words import last_words
from proxy.listener.reading import BODY, RequestReader, Taker
from proxy.listener.turn import Turn
from proxy.listener.watch import Watch
from proxy.wire import Wire

LINGER_S: Final = 2.0
"""How long after the last words more is read and thrown away. nginx: lingering_timeout 5s."""

LINGER_NOT: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, with no time: closing sends RST (socket(7))."""

MOST_AHEAD: Final = 16
"""From so many requests that wait for their turn on, no more is read. No SDK sends a second one early."""


class CallerConnection(Taker):
    """One caller's connection: requests in, one at a time served, answers out in their order."""

    def __init__(
        self,
        serve: Callable[[Wire], Coroutine[Any, Any, None]],
        server_state: ServerState,
        bounds: Bounds,
        ended: Callable[[End], None],
        turn: Turn,
    ) -> None:
        self.bounds = bounds
        self.ended = ended
        self._serve = serve
        self._turn = turn
        self._loop = turn.loop
        self._state = server_state
        self._reader = RequestReader(self, bounds)
        self._transport = cast("asyncio.Transport", None)  # until connection_made
        self._hangup: Hangup | None = None  # from the first pause on
        self._on_gone: Callable[[], None] | None = None
        self._drain: asyncio.Future[None] | None = None
        self._held = False  # answers wait to be taken: no more requests until then
        self._closing = False  # after the answers that are due
        self._left = False  # nobody is served any more, though the transport lingers
        self._last_words = b""  # what is written before that
        self._lingering: asyncio.TimerHandle | None = None
        self._due: deque[Wire] = deque()  # to be answered
        self._serving: Wire | None = None  # until its call has ended
        self._starting = False
        self.idle_since = 0.0
        self.paused = False  # reading
        self.peer = b""
        self.scheme = "http"
        self.slow = False  # the caller: what was written has not left
        self._watch = Watch(self, self._reader, bounds, turn.loop)  # last: it looks at all of this

    # ── what wire.py uses ───────────────────────────────────────────────────────────────────────────

    @property
    def gone(self) -> bool:
        """Has the caller disconnected, or have we?"""
        return self._left or self._transport.is_closing()

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` when the caller disconnects; at once if it has. None: no longer."""
        if callback is not None and self.gone:
            callback()
        else:
            self._on_gone = callback

    def write(self, piece: bytes) -> None:
        """Bytes of an answer; nothing once the connection is lost."""
        if not (self._left or self._transport.is_closing()):
            self._transport.write(piece)

    async def drained(self) -> None:
        """Wait until the caller has taken enough of what was written, or has gone."""
        while self.slow and not self.gone:
            self._drain = self._loop.create_future()
            try:
                await self._drain
            finally:
                self._drain = None

    def resume_reading(self) -> None:
        """Somebody reads the body: let more of it come."""
        if self.paused and not self._held and len(self._due) <= MOST_AHEAD:
            self.paused = False
            self._transport.resume_reading()
            self._watch.resumed()

    def reset(self, *, hard: bool = False) -> None:
        """Cut the connection. `hard`: by RST, for an answer whose only end is the end of its connection."""
        if hard:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        self._transport.abort()

    def answered(self, wire: Wire) -> None:
        """An answer is complete. The next request has its turn when this call has let go of what it holds."""
        self._state.total_requests += 1
        self._on_gone = None
        if not wire.keep or (self._closing and len(self._due) == 1):
            self._due.clear()
            self._end_well()
            return
        self._due.popleft()
        if not self._due:
            self.idle_since = self._loop.time()
        if self.slow:
            self._held = True
            self.pause_reading()
        elif self.paused:
            self.resume_reading()

    def served(self, wire: Wire) -> None:
        """The call has ended. It says so itself: a callback of the loop would cost a turn of it."""
        call, wire.call = wire.call, None
        if call is not None:
            cast("set[Begun]", self._state.tasks).discard(call)
        self._serving = None
        if self._due and self.gone:
            self._due.clear()  # they are not served any more, and hold us
        elif self._due and wire.done:
            if call is not None and call.in_a_task:
                self._loop.call_soon(self.start)  # whose task is none of the next call's
            else:
                self.start()

    def start(self) -> None:
        """Serve what came, if the caller is still there: at the end of this turn, or behind another call."""
        if not self.gone:
            self._start()

    # ── what reading.py, watch.py and crowd.py use ──────────────────────────────────────────────────

    @property
    def idle(self) -> bool:
        """Is nothing to be answered? At most a part of a head is here."""
        return not self._due

    def take(self, wire: Wire) -> None:
        """A request's head is whole: it is served when what was read with it is taken in, or in its turn."""
        due = self._due
        if self._closing:
            self._reader.stopped = True
        elif len(due) < self.bounds.most_pipelined:
            due.append(wire)
            if len(due) > MOST_AHEAD:
                self.pause_reading()
        else:
            self._reader.stopped = True  # the rest is for another connection (RFC 9112 §9.3.2)
            self.ended(End.TOO_MANY_AHEAD)
            due[-1].keep = False

    def pause_reading(self) -> None:
        """Enough is here."""
        if not self.paused:
            self.paused = True
            self._transport.pause_reading()
            if self._hangup is None:
                self._hangup = Hangup(self, self._transport.get_extra_info("socket"), self._loop)
            self._hangup.paused()

    def refuse(self, status: int, why: End, message: str) -> None:
        """These bytes are no request to be served: say so when what came before is answered, and end."""
        reader, due = self._reader, self._due
        reader.stopped = True
        if self._closing or self.gone:
            return
        self.ended(why)
        self._last_words = last_words(status, why, message)
        broken = reader.wire
        if reader.phase == BODY and broken is not None and not broken.body_arrived:
            if not due or due[-1] is not broken:
                self._last_words = b""  # it has its answer: a second one would belong to nothing
            elif broken is not self._serving:
                due.pop()  # its turn has not come
            elif broken.started:
                self._transport.abort()  # the caller sees that the answer is cut
                return
            else:
                self._break_off(broken)
                return
        self._closing = True
        if not due:
            self._hang_up()

    def end(self, why: End) -> None:
        """End a connection on which nothing is due."""
        if not (self._closing or self.gone):
            self.ended(why)
        self._transport.close()

    def abort(self) -> None:
        """End it at once."""
        self._transport.abort()

    # ── what the transport says ─────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        connections = cast("set[Guest]", self._state.connections)
        connections.add(self)
        address = transport.get_extra_info("peername")
        self.peer = address[0].encode() if isinstance(address, tuple) else b""
        self.scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self.idle_since = self._loop.time()
        self._watch.start()
        if len(connections) > self.bounds.most_connections and not make_room(
            connections, self, self.bounds.most_connections
        ):
            self.ended(End.NO_ROOM)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - how it was lost changes nothing
        self._state.connections.discard(self)
        self._reader.release()
        self._watch.cancel()
        if self._hangup is not None:
            self._hangup.cancel()
        if self._lingering is not None:
            self._lingering.cancel()
        self.resume_writing()
        for wire in self._due:
            wire.wake()
        if self._serving is None:
            self._due.clear()
        self._tell_gone()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if not reader.stopped:
            reader.feed(data)
            if self._due and self._serving is None:
                self._turn.add(self, len(data))
            if reader.phase:
                self._watch.part(len(data))

    def eof_received(self) -> None:
        """The caller will send no more: the transport closes."""

    def pause_writing(self) -> None:
        self.slow = True

    def resume_writing(self) -> None:
        self.slow = False
        drain = self._drain
        if drain is not None and not drain.done():
            drain.set_result(None)
        if self._held:
            self._held = False
            if not self._transport.is_closing():
                self.resume_reading()

    # ── its ends ────────────────────────────────────────────────────────────────────────────────────

    def shutdown(self) -> None:
        """uvicorn: end when what is due has been answered."""
        self._closing = True
        if self._due:
            for wire in self._due:
                wire.keep = False
        else:
            self._transport.close()

    def _start(self) -> None:
        """Serve what is due, one after the other, as far as nothing has to be waited for."""
        due = self._due
        if self._starting:
            return  # served in the loop below, which goes on by itself
        tasks = cast("set[Begun]", self._state.tasks)
        self._starting = True
        try:
            while due and self._serving is None:
                self._serving = wire = due[0]
                call = Begun(self._serve(wire), self._loop)
                if call.begin():
                    wire.call = call
                    tasks.add(call)  # uvicorn cancels what outlasts the drain
                elif not wire.done:
                    break  # it was cut, and with it who stands behind
        finally:
            self._starting = False

    def _end_well(self) -> None:
        self._closing = True
        self._reader.stopped = True
        self._hang_up()

    def _break_off(self, wire: Wire) -> None:
        """The request turned out to be none while it was served: answer that, and nothing more."""
        wire.done = True
        self._end_well()
        self._left = True
        wire.wake()
        self._tell_gone()

    def _tell_gone(self) -> None:
        gone, self._on_gone = self._on_gone, None
        if gone is not None:
            gone()

    def _hang_up(self) -> None:
        """Say the last words and close, but listen a moment longer.

        Bytes that reach a closed socket are answered by RST, and RST takes away what was said and not yet
        read. Precedent: nginx's lingering_close.
        """
        if self._lingering is not None:
            return
        self.write(self._last_words)
        more_may_come = self._last_words or self._reader.phase
        if not more_may_come or not self._transport.can_write_eof():
            self._transport.close()
        elif not self._transport.is_closing():
            self._transport.write_eof()
            if self.paused:
                self._transport.resume_reading()
            self._lingering = self._loop.call_later(LINGER_S, self._transport.abort)
