"""Arithmetic of measuring: percentiles, medians of ratios."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from statistics import median


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed; nan of none."""
    if not values:
        return float("nan")
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the round-by-round ratios: what slows a whole round down slows both, and cancels.

    Round i of `ours` was measured next to round i of `theirs`. Raises ValueError if the rounds do not pair.
    """
    return median(mine / other for mine, other in zip(ours, theirs, strict=True))
