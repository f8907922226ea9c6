"""The numbers: plain ints that the hot path raises and a scrape reads.

One `Flow` for each (route, priority, upstream), found by one dictionary look-up; histograms are shared by
the flows of a lane or of a route's upstream, so that a scrape has fewer rows to write.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from proxy.core.survey import OTHERS
from proxy.core.used import Used
from proxy.core.verdict import Outcome, Reason

MOST_VALUES: Final = 200
"""Distinct values one label may take. The configuration names them; this holds if something else does."""

PROMISES: Final = 50
"""So many of the last promises are in the share of those kept."""

WAIT_BOUNDS_S: Final[tuple[float, ...]] = (
    0.001,
    0.005,
    0.01,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    20.0,
    60.0,
)
"""For time spent with us: from one turn of the loop to the longest queue anybody should configure."""

ANSWER_BOUNDS_S: Final[tuple[float, ...]] = (
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    600.0,
)
"""For time spent upstream: from a cached tool answer to the 600 s at which the SDKs give up."""

TRIP_BOUNDS_S: Final[tuple[float, ...]] = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""For a trip to a shared store: from one in the same rack to the longest that a `timeout` allows for most."""

SCOPES: Final = frozenset({"caller", "run", "route", "upstream", "tool", "store", "proxy"})
"""What a refusal's scope may begin with; anything else is counted as `others`."""


class Labels:
    """A bounded set of label values: the first `MOST_VALUES` are kept, the rest are `others`."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: set[str] = set()

    def keep(self, value: str) -> str:
        """The value to show for `value`, the same one each time."""
        if value in self._kept:
            return value
        if len(self._kept) >= MOST_VALUES:
            return OTHERS
        self._kept.add(value)
        return value


class ToolMoves:
    """Moves of tools' own breakers, by route, tool and the phase moved into."""

    __slots__ = ("_counts", "_labels")

    def __init__(self) -> None:
        self._counts: dict[tuple[str, ...], int] = {}
        self._labels = Labels()

    def add(self, scope: str, phase: str) -> None:
        """One more, of the tool in a scope such as `tool:github/search`."""
        route, _, tool = self._labels.keep(scope.partition(":")[2]).partition("/")
        names = (route, tool or OTHERS, phase)
        self._counts[names] = self._counts.get(names, 0) + 1

    def items(self) -> Iterable[tuple[tuple[str, ...], int]]:
        """All of them."""
        return self._counts.items()


class Histogram:
    """Observations in seconds. `cells[i]` counts those at most `bounds[i]`; the last cell, all above."""

    __slots__ = ("bounds", "cells", "sum_s")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.cells = [0] * (len(bounds) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        at = 0
        for bound in self.bounds:  # most end early
            if seconds <= bound:
                break
            at += 1
        self.cells[at] += 1
        self.sum_s += seconds


class Kept:
    """Of the promises that came due, the share that was kept: of the last fifty or so."""

    __slots__ = ("_seen", "share")

    def __init__(self) -> None:
        self._seen = 0
        self.share = 1.0

    def add(self, *, kept: bool) -> None:
        """One more came due."""
        self._seen = min(PROMISES, self._seen + 1)
        self.share += ((1.0 if kept else 0.0) - self.share) / self._seen


class Tokens:
    """Tokens of one route's calls: as estimated when they came, as charged in the end, and of what kind."""

    __slots__ = ("cached", "counted", "estimated", "exact", "input", "output")

    def __init__(self) -> None:
        self.estimated = self.exact = self.counted = 0.0
        self.input = self.output = self.cached = 0.0

    def add(self, estimated: float, used: Used) -> None:
        """One call ended."""
        self.estimated += estimated
        if used.exact:
            self.exact += used.tokens
        else:
            self.counted += used.tokens
        self.input += used.input
        self.output += used.output
        self.cached += used.cached

    def charged(self) -> tuple[tuple[str, float], ...]:
        """By how they were counted, what rate limits count."""
        return ("exact", self.exact), ("estimated", self.counted)

    def used(self) -> tuple[tuple[str, float], ...]:
        """By what they were."""
        return ("input", self.input), ("cached", self.cached), ("output", self.output)


class Lane(NamedTuple):
    """The histograms of one (route, priority)."""

    age_at_dispatch: Histogram
    queue_time: Histogram
    call_time: Histogram


class Leg(NamedTuple):
    """The histograms of one (route, upstream)."""

    upstream_time: Histogram
    first_byte: Histogram


class Flow:
    """All counts of one (route, priority, upstream). `offered` is counted on its own, never derived.

    The first three histograms are shared by all flows of a lane, the other two by all priorities of a route.
    """

    __slots__ = (
        "admitted", "age_at_dispatch", "answers", "broken", "call_time", "failures", "first_byte", "kept",
        "left", "names", "offered", "queue_time", "refused", "settled", "upstream_time", "would_queue",
        "would_refuse",
    )  # fmt: skip

    def __init__(self, names: tuple[str, str, str], lane: Lane, leg: Leg) -> None:
        self.names = names  # route, priority, upstream
        self.age_at_dispatch, self.queue_time, self.call_time = lane
        self.upstream_time, self.first_byte = leg
        self.offered = self.admitted = self.left = 0
        self.kept = self.broken = 0  # promises, by whether who came back at the time told was admitted
        self.refused: defaultdict[tuple[Reason, str], int] = defaultdict(int)  # by reason and kind of scope
        self.would_refuse: defaultdict[tuple[Reason, str], int] = defaultdict(int)
        self.would_queue: defaultdict[tuple[Reason, str], int] = defaultdict(int)
        self.settled: defaultdict[Outcome, int] = defaultdict(int)
        self.answers: defaultdict[int, int] = defaultdict(int)  # by the first digit of the status; 0: none
        self.failures: defaultdict[Reason, int] = defaultdict(int)


class Flows(dict[tuple[str, int, str], Flow]):
    """Flows by route, rank and upstream: `flows[call.route, call.rank, upstream]` always finds one.

    A dictionary with `__missing__`, because the hot path asks three times for each call and a method would
    double the price. Iterate `every`, never this: it forgets at a reload, which may rename the classes, while
    what was counted stays as it was named.
    """

    __slots__ = ("_classes", "_routes", "_upstreams", "every", "lanes", "legs")

    def __init__(self, classes: tuple[str, ...]) -> None:
        super().__init__()
        self._classes = classes
        self._routes = Labels()
        self._upstreams = Labels()
        self.every: dict[tuple[str, str, str], Flow] = {}
        self.lanes: dict[tuple[str, str], Lane] = {}
        self.legs: dict[tuple[str, str], Leg] = {}

    def reclassify(self, classes: tuple[str, ...]) -> None:
        """Ranks mean these classes from now on."""
        self._classes = classes
        self.clear()

    def __missing__(self, asked: tuple[str, int, str]) -> Flow:
        """The flow for labels not seen since the last reload, or beyond the bound of the labels."""
        route, upstream = self._routes.keep(asked[0]), self._upstreams.keep(asked[2])
        # A call that arrived before a reload may have a rank that exists no more: the last class is meant.
        priority = self._classes[min(asked[1], len(self._classes) - 1)]
        names = (route, priority, upstream)
        flow = self.every.get(names)
        if flow is None:
            lane = self.lanes.setdefault((route, priority), _lane())
            leg = self.legs.setdefault((route, upstream), _leg())
            flow = self.every[names] = Flow(names, lane, leg)
        if (route, upstream) == (asked[0], asked[2]):  # names without end must not fill this dictionary
            self[asked] = flow
        return flow


def _lane() -> Lane:
    return Lane(Histogram(WAIT_BOUNDS_S), Histogram(WAIT_BOUNDS_S), Histogram(ANSWER_BOUNDS_S))


def _leg() -> Leg:
    return Leg(Histogram(ANSWER_BOUNDS_S), Histogram(ANSWER_BOUNDS_S))
