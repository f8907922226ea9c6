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
from typing import Final

HORIZON_S: Final = 60.0
"""How long after the instant told to it a caller may come back and still be recognised."""

MOST: Final = 20_000
"""Traces kept at most; the oldest are forgotten first, and a forgotten call counts as a first attempt."""

EARLY_S: Final = 0.1
"""Who comes back this much before the instant told comes as told: clocks and timers have grains."""

TELLING_BYTES: Final = 64 * 1024
"""From this length on, two bodies of one length are taken for the same one."""

TRACES_PER_KEY: Final = 64
"""Equal calls of one caller that can be told apart by number only."""


Key = tuple[str, str, bytes, int]
"""What equals in a call and its repeat, and is known before the body is read: caller, run, path, length."""


def of_any_length(key: Key) -> Key:
    """Under which a trace with a digest is kept."""
    return key[0], key[1], key[2], -1


class Trace:
    """One call that was refused or failed. `due_at` is when it was told to come back; inf: it was not.

    `tokens` is what it was estimated to cost: its repeat need not be read for that again.
    """

    __slots__ = ("digest", "due_at", "tokens", "until")

    def __init__(self, digest: bytes | None, due_at: float, until: float, tokens: float) -> None:
        self.digest = digest
        self.tokens = tokens
        self.due_at = due_at
        self.until = until

    def invites(self, now: float) -> bool:
        """Is a return at `now` one that was asked for? Then no retry budget pays for it."""
        return now >= self.due_at - EARLY_S


class _Row:
    """The traces of one key, oldest first, and the first instant at which one of them may have ended."""

    __slots__ = ("first_end", "traces")

    def __init__(self) -> None:
        self.traces: list[Trace] = []
        self.first_end = float("inf")


class Repeats:
    """The recent traces, bounded in number and time."""

    __slots__ = ("_count", "_rows")

    def __init__(self) -> None:
        self._rows: OrderedDict[Key, _Row] = OrderedDict()  # least lately used first
        self._count = 0

    def refused(
        self, key: Key, digest: bytes | None, retry_after_s: float, now: float, tokens: float = 0.0
    ) -> None:
        """A call was refused and told to come back after `retry_after_s`; `digest` if its body was here."""
        self._remember(key, Trace(digest, now + retry_after_s, now + retry_after_s + HORIZON_S, tokens))

    def failed(self, key: Key, digest: bytes | None, now: float, tokens: float = 0.0) -> None:
        """A call reached its upstream and failed; `digest` if its body was kept. No repeat was asked for."""
        kept_under = key if digest is None else of_any_length(key)
        self._remember(kept_under, Trace(digest, float("inf"), now + HORIZON_S, tokens))

    def wants_digest(self, key: Key, now: float) -> bool:
        """Must the body be read to tell whether this call is a repeat?"""
        if key[3] >= TELLING_BYTES:
            return False
        if self._alive(of_any_length(key), now):
            return True
        told_apart = False
        for trace in self._alive(key, now):
            if trace.invites(now):
                return False
            told_apart = told_apart or trace.digest is not None
        return told_apart

    def match(self, key: Key, digest: bytes | None, now: float) -> Trace | None:
        """The trace that this call repeats, which is then used up; None for a call that is new.

        `digest` may be None where `wants_digest` did not ask for it.
        """
        if digest is not None:
            any_length = of_any_length(key)
            for trace in self._alive(any_length, now):
                if trace.digest == digest:
                    return self._use_up(any_length, trace)
        traces = self._alive(key, now)
        for trace in traces:
            if trace.invites(now):
                return self._use_up(key, trace)
        for trace in traces:
            if key[3] >= TELLING_BYTES or (digest is not None and trace.digest == digest):
                return self._use_up(key, trace)
        return None

    def __len__(self) -> int:
        """Traces kept."""
        return self._count

    def _use_up(self, key: Key, trace: Trace) -> Trace:
        self._rows[key].traces.remove(trace)  # an empty row stays: an early repeat is refused again
        self._count -= 1
        return trace

    def _alive(self, key: Key, now: float) -> list[Trace]:
        row = self._rows.get(key)
        if row is None:
            return _NONE
        if row.first_end < now:
            # Not in the order of their ends: a refusal lives on from the instant told, a failure from now.
            alive = [trace for trace in row.traces if trace.until >= now]
            self._count -= len(row.traces) - len(alive)
            row.traces = alive
            row.first_end = min((trace.until for trace in alive), default=float("inf"))
            if not alive:
                del self._rows[key]
        return row.traces

    def _remember(self, key: Key, trace: Trace) -> None:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = _Row()
        else:
            self._rows.move_to_end(key)
        if len(row.traces) >= TRACES_PER_KEY:
            del row.traces[0]
            self._count -= 1
        row.traces.append(trace)
        row.first_end = min(row.first_end, trace.until)
        self._count += 1
        while self._count > MOST:
            _, forgotten = self._rows.popitem(last=False)
            self._count -= len(forgotten.traces)
        if len(self._rows) > 2 * MOST:  # at least half of them are empty
            self._rows = OrderedDict((key, row) for key, row in self._rows.items() if row.traces)


_NONE: Final[list[Trace]] = []
"""Never filled: nobody adds to what `_alive` returns."""
