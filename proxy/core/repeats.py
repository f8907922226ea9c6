"""Which call is a repeat: what was refused or failed lately, and what would show that it came again.

The same caller and run asking for the same path again with the same body, soon after a refusal or a
failure, repeats that call (reference/clients.md, "Recognising retries and runs"). Headers alone cannot tell:
most agents send no retry count.

A failed call is known by the digest of its body, whatever its length: a repeat may leave out `stream`, or
write other spaces. A refused one is known by the length, which is there before the body is: whoever returns
with it at the time told is excused. Whoever returns with it earlier is proven by the digest, where the body
had arrived to take it; where not, only a length that two bodies hardly share by chance proves anything.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from proxy.core.advice import Followers
from proxy.core.rounding import NEVER

if TYPE_CHECKING:
    from proxy.core.book import Ticket
    from proxy.core.outbox import Outbox

HORIZON_S: Final = 60.0
"""How long after the instant told to it a caller may come back and still be recognised."""

MOST: Final = 20_000
"""Traces kept at most; the oldest are forgotten first, and a forgotten call counts as a first attempt. Beside
them as many of those whose return is awaited: a promise is kept though thousands are refused a second.
"""

EARLY_S: Final = 0.1
"""Who comes back this much before the instant told comes as told: clocks and timers have grains."""

TELLING_BYTES: Final = 64 * 1024
"""From this length on, two bodies of one length are taken for the same one."""

HOLD_S: Final = 1.0
"""So long after an answer was cut its repeat is held. Agents repeat within 0.2 s, without any back-off
(reference/clients.md, finding 8), and an upstream that cuts one stream cuts many."""

AT_ONCE_S: Final = HORIZON_S - 2 * HOLD_S
"""So long before it is forgotten a failed call is too old for a repeat that is known by its length less those
few bytes: two lengths may differ by them by chance."""

STREAMED_BYTES: Final = (16, 14, -1)
"""By how much a body is longer that says `"stream": true` than its repeat, which leaves it out (with the
blanks that Python writes, and without), or says `false`. Of a long body nothing but the length is known."""

TRACES_PER_KEY: Final = 512
"""Calls of one caller and one length that can be away at once and be known again: so many agents share a key.
To look through them takes ten microseconds."""


Key = tuple[str, str, bytes, int]
"""What equals in a call and its repeat, and is known before the body is read: caller, run, path, length."""


def of_any_length(key: Key) -> Key:
    """Under which a trace with a digest is kept."""
    return key[0], key[1], key[2], -1


class Trace:
    """One call that was refused or failed. `due_at` is when it was told to come back; inf: it was not.

    `ticket` is the place that is kept for it. `tokens` is what it was estimated to cost: its repeat need not
    be read for that again. `origin` is the replica that told of it, and by which number; `is_used`: its
    repeat has come. `not_before` is when its repeat may be admitted, 0 but for one whose answer was cut.
    """

    __slots__ = ("digest", "due_at", "is_used", "not_before", "origin", "ticket", "tokens", "until")

    def __init__(
        self,
        digest: bytes | None,
        due_at: float,
        until: float,
        tokens: float,
        ticket: Ticket | None = None,
    ) -> None:
        self.ticket = ticket
        self.digest = digest
        self.tokens = tokens
        self.due_at = due_at
        self.until = until
        self.origin: tuple[str, int] | None = None
        self.is_used = False
        self.not_before = 0.0

    def is_awaited(self, now: float) -> bool:
        """Is its return still to come, to a place that is kept for it?"""
        return self.ticket is not None and self.ticket.is_open and self.ticket.until >= now

    def invites(self, now: float) -> bool:
        """Is a return at `now` one that was asked for? Then no retry budget pays for it."""
        return now >= self.due_at - EARLY_S


class _Row:
    """The traces of one key, oldest first.

    One of them may have ended from `first_end` on, and may invite from `first_due` on; no sooner. `tickets`
    of them have one, or had, and `marked` have a digest, or had.
    """

    __slots__ = ("first_due", "first_end", "marked", "tickets", "traces")

    def __init__(self) -> None:
        self.traces: list[Trace] = []
        self.first_due = NEVER
        self.tickets = self.marked = 0
        self.first_end = NEVER

    def is_awaited(self, now: float) -> bool:
        """Is anybody's return still to come, to a place that is kept for it?"""
        return self.tickets > 0 and any(trace.is_awaited(now) for trace in self.traces)


class _Shelf:
    """Rows by their keys, the least lately put first, and how many traces they have: `count`."""

    __slots__ = ("count", "rows")

    def __init__(self) -> None:
        self.rows: OrderedDict[Key, _Row] = OrderedDict()
        self.count = 0

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    def put(self, key: Key, row: _Row) -> None:
        """As the one most lately put; there is none of this key."""
        self.rows[key] = row
        self.count += len(row.traces)

    def take(self, key: Key) -> _Row | None:
        """The row of a key, which is here no longer."""
        row = self.rows.pop(key, None)
        if row is not None:
            self.count -= len(row.traces)
        return row


class Repeats:
    """The recent traces, bounded in number and time. With an `outbox` other replicas hear of them.

    `followers` are those who may come with a smaller call instead.
    """

    __slots__ = ("_outbox", "_rows", "_spared", "followers")

    def __init__(self, outbox: Outbox | None = None) -> None:
        self._outbox = outbox
        self.followers = Followers()
        self._rows = _Shelf()
        self._spared = _Shelf()  # that were among them for too long, but are awaited

    def refused(
        self,
        key: Key,
        digest: bytes | None,
        retry_after_s: float,
        now: float,
        tokens: float = 0.0,
        ticket: Ticket | None = None,
    ) -> None:
        """A call was refused and told to come back after `retry_after_s`; `digest` if its body was here."""
        due_at = now + retry_after_s
        self._tell(key, Trace(digest, due_at, due_at + HORIZON_S, tokens, ticket), now)

    def failed(
        self, key: Key, digest: bytes | None, now: float, tokens: float = 0.0, *, cut: bool = False
    ) -> None:
        """A call reached its upstream and failed; `digest` if its body was kept. No repeat was asked for.

        `cut`: its caller had a part of the answer. Other replicas are not told that.
        """
        kept_under = key if digest is None else of_any_length(key)
        trace = Trace(digest, NEVER, now + HORIZON_S, tokens)
        if cut:
            trace.not_before = now + HOLD_S
        self._tell(kept_under, trace, now)

    def heard(self, key: Key, trace: Trace, now: float) -> None:
        """Another replica tells of one: its `origin` is known."""
        self._remember(key, trace, now)

    def forget(self, key: Key, origin: tuple[str, int], now: float) -> Trace | None:
        """Another replica has seen its repeat: the trace, which is used up; None where there is none."""
        for trace in self._alive(key, now):
            if trace.origin == origin:
                return self._take(key, trace)
        return None

    def wants_digest(self, key: Key, now: float) -> bool:
        """Must the body be read to tell whether this call is a repeat?"""
        if key[3] >= TELLING_BYTES:
            return False
        if self._alive(of_any_length(key), now):
            return True
        row = self._living(key, now)
        if row is None or not (row.traces and row.marked):
            return False
        traces = row.traces
        if row.tickets and any(trace.digest is not None and trace.is_awaited(now) for trace in traces):
            return True  # a place is kept for that very call
        if now >= row.first_due - EARLY_S:
            if any(trace.invites(now) for trace in traces):
                return False
            row.first_due = min(trace.due_at for trace in traces)
        return any(trace.digest is not None for trace in traces)

    def match(self, key: Key, digest: bytes | None, now: float) -> Trace | None:
        """The trace that this call repeats, which is then used up; None for a call that is new.

        `digest` may be None where `wants_digest` did not ask for it.
        """
        if digest is not None:
            any_length = of_any_length(key)
            for trace in self._alive(any_length, now):
                if trace.digest == digest:
                    return self._use_up(any_length, trace)
        invited: Trace | None = None
        for trace in self._alive(key, now):
            if digest is not None and trace.digest is not None:
                if trace.digest == digest:
                    return self._use_up(key, trace)
            elif invited is None and (trace.invites(now) or key[3] >= TELLING_BYTES):
                invited = trace
        if invited is not None:
            return self._use_up(key, invited)
        return self._unstreamed(key, now) if key[3] >= TELLING_BYTES - STREAMED_BYTES[0] else None

    def _unstreamed(self, key: Key, now: float) -> Trace | None:
        """The cut stream that this call asks for as a whole answer, as Claude Code does at once."""
        for more in STREAMED_BYTES:
            longer = key[0], key[1], key[2], key[3] + more
            if longer[3] >= TELLING_BYTES:
                for trace in self._alive(longer, now):
                    if trace.digest is None and trace.due_at == NEVER and now < trace.until - AT_ONCE_S:
                        return self._use_up(longer, trace)
        return None

    def __len__(self) -> int:
        """Traces kept."""
        return self._rows.count + self._spared.count

    def _shelf_of(self, key: Key) -> _Shelf | None:
        if key in self._rows.rows:
            return self._rows
        return self._spared if self._spared.rows and key in self._spared.rows else None

    def _use_up(self, key: Key, trace: Trace) -> Trace:
        if self._outbox is not None:
            self._outbox.used(key, trace)
        return self._take(key, trace)

    def _take(self, key: Key, trace: Trace) -> Trace:
        shelf = self._shelf_of(key)
        assert shelf is not None, "the trace was just found there"  # noqa: S101
        shelf.rows[key].traces.remove(trace)  # an empty row stays: an early repeat is refused again
        shelf.count -= 1
        return trace

    def _alive(self, key: Key, now: float) -> list[Trace]:
        row = self._living(key, now)
        return _NONE if row is None else row.traces

    def _living(self, key: Key, now: float) -> _Row | None:
        """The row of a key, without the traces that have ended; None where there is none left."""
        shelf = self._shelf_of(key)
        if shelf is None:
            return None
        row = shelf.rows[key]
        if row.first_end >= now:
            return row
        # Not in the order of their ends: a refusal lives on from the instant told, a failure from now.
        alive = [trace for trace in row.traces if trace.until >= now]
        shelf.count -= len(row.traces) - len(alive)
        row.traces = alive
        row.tickets = sum(trace.ticket is not None for trace in alive)
        row.marked = sum(trace.digest is not None for trace in alive)
        row.first_end = min((trace.until for trace in alive), default=NEVER)
        if alive:
            return row
        del shelf.rows[key]
        return None

    def _tell(self, key: Key, trace: Trace, now: float) -> None:
        self._remember(key, trace, now)
        if self._outbox is not None:
            self._outbox.told(key, trace)

    def _remember(self, key: Key, trace: Trace, now: float) -> None:
        recent, spared = self._rows, self._spared
        row = recent.take(key) or spared.take(key) or _Row()
        if len(row.traces) >= TRACES_PER_KEY:
            del row.traces[0]
        row.traces.append(trace)
        row.first_end = min(row.first_end, trace.until)
        row.first_due = min(row.first_due, trace.due_at)
        row.tickets += trace.ticket is not None
        row.marked += trace.digest is not None
        recent.put(key, row)
        self._forget_ended(now)
        while recent.count > MOST:
            oldest = next(iter(recent.rows))
            taken = recent.take(oldest)
            if taken is not None and taken.is_awaited(now):
                spared.put(oldest, taken)
        if spared.rows:
            self._forget_spared(now)
        if len(recent) > 2 * MOST:  # at least half of them are empty
            recent.rows = OrderedDict((key, each) for key, each in recent.rows.items() if each.traces)

    def _forget_spared(self, now: float) -> None:
        """Those that are awaited no longer, two for each that may have come; and the oldest of too many."""
        spared = self._spared
        for _ in range(2):
            oldest = next(iter(spared.rows), None)
            if oldest is None or (spared.count <= MOST and spared.rows[oldest].is_awaited(now)):
                return
            spared.take(oldest)

    def _forget_ended(self, now: float) -> None:
        """Of the rows used least lately those that are empty by now, two for each that may have come."""
        for _ in range(2):
            oldest = next(iter(self._rows.rows))
            row = self._living(oldest, now)
            if row is None:
                continue
            if row.traces:
                return
            del self._rows.rows[oldest]


_NONE: Final[list[Trace]] = []
"""Never filled: nobody adds to what `_alive` returns."""
