"""An upstream that congests: so many calls at once at full speed, and beyond them all become slower.

    python -m loadtests.congested_origin PORT SLOTS SERVICE_S

Whatever is asked is served at once, with all others: model U2 of reference/overload-control.md §2. It keeps a
ledger of every attempt, which is the oracle of `make compare-overload`: GET /ledger.
"""

from __future__ import annotations

import asyncio
import select
import sys
import time
from collections import deque
from dataclasses import astuple, dataclass
from typing import Any, Final

import uvloop

from loadtests.origin import RESPONSE, ByName

GRAIN_S: Final = 0.0005
"""Timers come to a millisecond; what is due within half of one is done, so that none is late on average."""
BACKLOG: Final = 4096


@dataclass(slots=True, eq=False)
class Entry:
    """One attempt. Times are monotonic seconds; `ended_at` is 0 while it runs; `done`: answered in full."""

    call: str
    begun_at: float
    ended_at: float = 0.0
    done: bool = False


class Congestion:
    """The calls in flight, which share the speed of the upstream. Time comes in as `now`.

    Each needs `service_s` of work. With n in flight all advance at the same speed, which is 1 up to `slots`
    and 1 / (1 + m/slots + 4/3 (m/slots)²) with m beyond: throughput is 100 % at the slots, 60 % at twice and
    25 % at four times as many.
    """

    def __init__(self, slots: int, service_s: float) -> None:
        self._slots = slots
        self._service_s = service_s
        self._worked_s = 0.0  # what a call that was always in flight would have got done
        self._at = 0.0
        # All need the same work: the first to come is the first to be done.
        self._due: deque[tuple[float, Entry]] = deque()
        self.in_flight = 0
        self.done = 0
        self.late_s = 0.0
        """How late all answers were, in sum: the timers, and whoever else had the core."""

    @property
    def slowness(self) -> float:
        beyond = max(0, self.in_flight - self._slots) / self._slots
        return 1.0 + beyond + beyond * beyond * 4.0 / 3.0

    def begin(self, entry: Entry, now: float) -> None:
        self._advance(now)
        self._due.append((self._worked_s + self._service_s, entry))
        self.in_flight += 1

    def leave(self, entry: Entry, now: float) -> None:
        """Its caller has gone: the rest of its work is not done."""
        self._advance(now)
        entry.ended_at = now
        self.in_flight -= 1

    def take_done(self, now: float) -> list[Entry]:
        """Those whose work is done by now, in the order in which they came."""
        self._advance(now)
        found = []
        while (after_s := self.next_done_s()) is not None and after_s <= GRAIN_S:
            self.late_s -= after_s
            self.done += 1
            _, entry = self._due.popleft()
            entry.ended_at, entry.done = now, True
            self.in_flight -= 1
            found.append(entry)
        return found

    def next_done_s(self) -> float | None:
        """From the last `now`: the seconds until the next is done if nothing changes; None without any."""
        while self._due and self._due[0][1].ended_at:  # it has left
            self._due.popleft()
        return (self._due[0][0] - self._worked_s) * self.slowness if self._due else None

    def _advance(self, now: float) -> None:
        self._worked_s += (now - self._at) / self.slowness
        self._at = now


class Upstream:
    """All connections' calls, one timer, and the ledger."""

    def __init__(self, congestion: Congestion) -> None:
        self._congestion = congestion
        self._under_way: dict[Entry, Connection] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.entries: list[Entry] = []
        self.peak_in_flight = 0

    def begin(self, call: str, connection: Connection) -> Entry:
        now = time.monotonic()
        # A proxy may send its next call as soon as it has closed a connection, and this loop may read the
        # two in any order: whoever has left is no part of a new peak. Far above, one more or less is nothing.
        if self.peak_in_flight <= self._congestion.in_flight < 100:
            for entry, other in list(self._under_way.items()):
                if other.has_left():
                    self.leave(entry)
        entry = Entry(call, now)
        self.entries.append(entry)
        self._under_way[entry] = connection
        self._congestion.begin(entry, now)
        self.peak_in_flight = max(self.peak_in_flight, self._congestion.in_flight)
        self._wind()
        return entry

    def leave(self, entry: Entry) -> None:
        if self._under_way.pop(entry, None):
            self._congestion.leave(entry, time.monotonic())
            self._wind()

    def ledger(self) -> dict[str, Any]:
        """`at` (now), `peak_in_flight`, `late_s` (how late an answer was on average, which is capacity lost),
        and the attempts as `[call, begun_at, ended_at, done]`."""
        return {
            "at": time.monotonic(),
            "peak_in_flight": self.peak_in_flight,
            "late_s": self._congestion.late_s / max(1, self._congestion.done),
            "entries": list(map(astuple, self.entries)),
        }

    def _answer_done(self) -> None:
        for entry in self._congestion.take_done(time.monotonic()):
            self._under_way.pop(entry).answer()
        self._wind()

    def _wind(self) -> None:
        if self._timer:
            self._timer.cancel()
        after_s = self._congestion.next_done_s()
        loop = asyncio.get_running_loop()
        self._timer = None if after_s is None else loop.call_later(max(0.0, after_s), self._answer_done)


class Connection(ByName):
    """One connection: a call begins when its body is complete. A second before the answer ends it.

    Its name says which attempt of which call it is, as `CALL.ATTEMPT`; one without a name is nobody's.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._entry: Entry | None = None

    def on_message_complete(self) -> None:
        if self._entry is not None:
            self._transport.abort()
        elif self._url == "/ledger":
            self.tell(self._upstream.ledger())
        else:
            self._entry = self._upstream.begin(self._call, self)

    def answer(self) -> None:
        self._entry = None
        self._transport.write(RESPONSE)

    def has_left(self) -> bool:
        """Has the caller closed? Asks the socket: the loop may not have come to it yet."""
        if self._transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._entry is not None:
            self._upstream.leave(self._entry)


async def serve(port: int, slots: int, service_s: float) -> None:
    """Answer on the loopback interface until cancelled."""
    upstream = Upstream(Congestion(slots, service_s))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(upstream), "127.0.0.1", port, backlog=BACKLOG)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
