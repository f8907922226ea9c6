"""The faults of an upstream, planned: F1 to F5. F8 is a load (`scenarios`), F6 and F7 are another issue's."""

from __future__ import annotations

from typing import Final

from loadtests.simulate.clock import Timeline
from loadtests.simulate.scenarios import Fault
from loadtests.simulate.streams import Streams
from loadtests.simulate.upstreams import Upstream

LEFT_OF_IT: Final = 0.3
"""Of the capacity, in a brown-out."""
ERRORS: Final = 0.1
SLOWER: Final = 10.0
LIMITS: Final = 0.5


def plan_faults(faults: tuple[Fault, ...], upstream: Upstream, timeline: Timeline) -> None:
    """Let each begin and end in its time."""
    for fault in faults:
        timeline.plan(fault.at, lambda name: _turn(upstream, name, on=True), fault.name)
        timeline.plan(fault.until, lambda name: _turn(upstream, name, on=False), fault.name)


def _turn(upstream: Upstream, name: str, *, on: bool) -> None:
    match name:
        case "F1":
            (upstream.go_down if on else upstream.come_up)()
        case "F2":
            upstream.error_share = ERRORS if on else 0.0
            upstream.shrink(LEFT_OF_IT if on else 1.0)
        case "F3":
            _streams(upstream).slow_start = SLOWER if on else 1.0
        case "F4":
            _streams(upstream).limit(LIMITS if on else 1.0)
        case "F5":
            upstream.is_deaf = on
        case _:
            raise ValueError(f"no fault is called {name}")


def _streams(upstream: Upstream) -> Streams:
    if not isinstance(upstream, Streams):
        raise TypeError("only an upstream that streams can be at fault so")
    return upstream
