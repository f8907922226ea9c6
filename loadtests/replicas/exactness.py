"""Arithmetic of limits that are kept: a bucket's worst window, how many ran at once, when all is back."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial

Span = tuple[float, float]


def worst_window(instants: Sequence[float], rate: float, burst: float, slack_s: float = 0.0) -> float:
    """By how much more than `burst + rate * (window + slack_s)` came in the worst window of any length.

    Below 0.0: how far the worst window stays from its limit. `instants` ascend.
    """
    worst, least = -burst, float("inf")
    for number, at in enumerate(instants):
        least = min(least, number - rate * at)
        worst = max(worst, number + 1 - rate * at - least - burst - rate * slack_s)
    return worst


def worst_of_length(instants: Sequence[float], rate: float, burst: float, length_s: float) -> float:
    """By how much more than `burst + rate * length_s` came in the worst window of that length."""
    worst, window = 0, deque[float]()
    for at in instants:
        window.append(at)
        while window[0] < at - length_s:
            window.popleft()
        worst = max(worst, len(window))
    return worst - burst - rate * length_s


def worst_share(instants: Sequence[float], rate: float, burst: float) -> float:
    """The excess of the worst window as a part of what was allowed in it; 0.0 without any."""
    worst, begun = 0.0, list[tuple[float, int, float]]()
    for number, at in enumerate(instants):
        mark = number - rate * at
        if not begun or mark < begun[-1][0]:
            begun.append((mark, number, at))
        mark, first, first_at = begun[-1]
        allowed = burst + rate * (at - first_at)
        worst = max(worst, (number - first + 1) / allowed - 1.0)
    return worst


def moved_by(earlier: Sequence[float], later: Sequence[float]) -> list[float]:
    """How much later each came, when both are in order: the first with the first, and so on."""
    return [there - here for here, there in zip(earlier, later, strict=False)]


def rate_between(instants: Sequence[float], from_at: float, to_at: float) -> float:
    """How many came a second. `instants` ascend."""
    return (bisect_left(instants, to_at) - bisect_left(instants, from_at)) / (to_at - from_at)


def back_after(instants: Sequence[float], since: float, rate: float, until: float, over_s: float) -> float:
    """From `since`: the seconds until so many come again, measured over `over_s` from then on; inf: never."""
    return reached_after(partial(rate_between, instants), since, rate, until, over_s)


def reached_after(
    measured: Callable[[float, float], float], since: float, least: float, until: float, over_s: float
) -> float:
    """From `since`: the seconds until so much is `measured` over `over_s` from then on; inf: never."""
    step_s, at = 0.05, since
    while at + over_s <= until:
        if measured(at, at + over_s) >= least:
            return at - since
        at += step_s
    return float("inf")


def in_flight(spans: Iterable[Span]) -> list[tuple[float, int]]:
    """How many run from each instant on; 0.0 is no end. One that ends makes room for one that begins then."""
    steps: list[tuple[float, int]] = []
    for begun, ended in spans:
        steps += [(begun, 1), (ended or float("inf"), -1)]
    steps.sort()
    curve, running = list[tuple[float, int]](), 0
    for at, step in steps:
        running += step
        curve.append((at, running))
    return curve


def mean_in_flight(curve: Sequence[tuple[float, int]], from_at: float, to_at: float) -> float:
    """The mean over a time."""
    total = 0.0
    for (at, running), (then, _) in zip(curve, [*curve[1:], (to_at, 0)], strict=True):
        total += running * max(0.0, min(then, to_at) - max(at, from_at))
    return total / (to_at - from_at)


def below(curve: Sequence[tuple[float, int]], least: int, from_at: float, to_at: float) -> list[Span]:
    """The stretches within a time in which fewer than `least` ran."""
    found, running_at = list[Span](), 0
    for at, running in curve:
        if at <= from_at:
            running_at = running
    since = from_at if running_at < least else None
    for at, running in curve:
        if not from_at < at < to_at:
            continue
        if running < least and since is None:
            since = at
        elif running >= least and since is not None:
            if at > since:
                found.append((since, at))
            since = None
    return [*found, (since, to_at)] if since is not None else found
