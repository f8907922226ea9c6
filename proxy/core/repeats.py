"""Which call is a repeat: what was refused or failed lately, and what would show that it came again.

The same caller and run asking for the same path again with the same body, soon after a refusal or a
failure, repeats that call (reference/clients.md, "Recognising retries and runs"). Headers alone cannot tell:
most agents send no retry count.

A call refused at the door was refused before its body was read, so its trace has no digest and is matched
by the length of its body; a call that reached an upstream and failed is matched by the digest, where its
body was kept. Then the length does not matter: a repeat may leave out `stream`, or write other spaces.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final, NamedTuple

HORIZON_S: Final = 60.0
"""How long after the instant told to it a caller may come back and still be recognised."""

MOST: Final = 20_000
"""Traces kept at most; the oldest are forgotten first, and a forgotten call counts as a first attempt."""

TRACES_PER_KEY: Final = 64
"""Equal calls of one caller that can be told apart by number only."""


class Key(NamedTuple):
    """What equals in a call and its repeat, and is known before the body is read."""

    caller: str
    run: str
    path: bytes
    length: int

    def of_any_length(self) -> Key:
        """Under which a trace with a digest is kept."""
        return self._replace(length=-1)


class Trace(NamedTuple):
    """One call that was refused or failed. `due_at` is when it was told to come back; inf: it was not."""

    digest: bytes | None
    due_at: float
    until: float


class Repeats:
    """The recent traces, bounded in number and time."""

    __slots__ = ("_count", "_traces")

    def __init__(self) -> None:
        self._traces: OrderedDict[Key, deque[Trace]] = OrderedDict()  # least lately used first
        self._count = 0

    def refused(self, key: Key, retry_after_s: float, now: float) -> None:
        """A call was refused at the door and told to come back after `retry_after_s`."""
        self._add(key, Trace(None, now + retry_after_s, now + retry_after_s + HORIZON_S))

    def failed(self, key: Key, digest: bytes | None, now: float) -> None:
        """A call reached its upstream and failed: whoever repeats it was not asked to.

        `digest` is None when the body was too large to be kept.
        """
        kept_under = key if digest is None else key.of_any_length()
        self._add(kept_under, Trace(digest, float("inf"), now + HORIZON_S))

    def wants_digest(self, key: Key, now: float) -> bool:
        """Must the body be read to tell whether this call is a repeat?"""
        return bool(self._alive(key.of_any_length(), now))

    def match(self, key: Key, digest: bytes | None, now: float) -> Trace | None:
        """The trace that this call repeats, which is then used up; None for a call that is new.

        A trace with a digest matches that alone, one without any body of the same length: `digest` may be
        None where `wants_digest` did not ask for it.
        """
        trace = None if digest is None else self._use_up(key.of_any_length(), digest, now)
        return trace or self._use_up(key, None, now)

    def __len__(self) -> int:
        """Traces kept."""
        return self._count

    def _use_up(self, key: Key, digest: bytes | None, now: float) -> Trace | None:
        traces = self._alive(key, now)
        for trace in traces:
            if trace.digest == digest:
                traces.remove(trace)
                self._count -= 1
                if not traces:
                    del self._traces[key]
                return trace
        return None

    def _alive(self, key: Key, now: float) -> deque[Trace]:
        traces = self._traces.get(key)
        if traces is None:
            return deque()
        # Not in the order of their ends: a refusal lives on from the instant told, a failure from now.
        expired = [trace for trace in traces if trace.until < now]
        for trace in expired:
            traces.remove(trace)
        self._count -= len(expired)
        if not traces:
            del self._traces[key]
        return traces

    def _add(self, key: Key, trace: Trace) -> None:
        traces = self._traces.setdefault(key, deque())
        self._traces.move_to_end(key)
        if len(traces) >= TRACES_PER_KEY:
            traces.popleft()
            self._count -= 1
        traces.append(trace)
        self._count += 1
        while self._count > MOST:
            _, forgotten = self._traces.popitem(last=False)
            self._count -= len(forgotten)
