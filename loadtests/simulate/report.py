"""The table: every goal beside what was found, over all seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from random import Random
from statistics import median
from typing import Any, Final

from loadtests.simulate.goals import ROWS, Figures, Row

RESAMPLES: Final = 500
MET, MISSED, UNKNOWN = "met", "MISSED", "-"


def judge(by_seed: Mapping[int, Figures]) -> list[dict[str, Any]]:
    """A line for each row whose runs were played, with its verdict."""
    lines = []
    for row in ROWS:
        try:
            values = [row.of(figures) for figures in by_seed.values()]
        except KeyError:
            continue  # not played
        lines.append(judged(row, values))
    return lines


def judged(row: Row, values: Sequence[float]) -> dict[str, Any]:
    """The line of a row that came to these values, one for each seed."""
    if row.share_of_seeds:
        keeping = sum(row.keeps(value, row.bound) for value in values)
        met = keeping == len(values)
        found, low, high = keeping / len(values), min(values), max(values)
        worst = low if row.at_least else high
        floor_met = met if row.floor is not None else None
        shown = f"{keeping} of {len(values)} (worst {worst:.3g})"
    else:
        known = [value for value in values if not isnan(value)]
        found = median(known) if len(known) > len(values) / 2 else float("nan")
        low, high = interval(known)
        met = row.keeps(found, row.bound)
        floor_met = row.keeps(found, row.floor) if row.floor is not None else None
        shown = figure(found)
    return {
        "metric": row.metric,
        "what": row.what,
        "scenario": row.scenario,
        "variant": row.variant,
        "goal": row.bound,
        "at_least": row.at_least,
        "found": found,
        "low": low,
        "high": high,
        "shown": shown,
        "verdict": MET if met else MISSED,
        "floor": row.floor,
        "floor_verdict": UNKNOWN if floor_met is None else MET if floor_met else MISSED,
        "values": list(values),
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The bootstrap interval of the median that holds in 95 % of resamples."""
    if not values:
        return float("nan"), float("nan")
    luck = Random(1)
    medians = sorted(median(luck.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES)]


def figure(value: float) -> str:
    """A number as the table shows it."""
    if isnan(value):
        return "never"
    return f"{value:.4f}" if 0.9 < value < 1.0 else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def render(lines: Sequence[Mapping[str, Any]], seeds: int) -> str:
    """The table for people."""
    names = ("", "", "scenario", "column", "goal", "found", "95 % of medians", "", "floor")
    head = _columns(*names)
    page = [f"OB-1, {seeds} seeds; 'told' is the same configuration told the capacity", head]
    metric = ""
    for line in lines:
        name, metric = ("" if line["metric"] == metric else line["metric"]), line["metric"]
        goal = f"{'>=' if line['at_least'] else '<='} {line['goal']:g}"
        spread = f"{figure(line['low'])} .. {figure(line['high'])}"
        floor = "" if line["floor"] is None else f"{line['floor']:g} {line['floor_verdict']}"
        ends = line["verdict"], floor
        page.append(
            _columns(
                name, line["what"], line["scenario"], line["variant"], goal, line["shown"], spread, *ends
            )
        )
    missed = sum(line["verdict"] == MISSED for line in lines)
    page.append(f"{len(lines) - missed} of {len(lines)} goals met, {missed} missed")
    return "\n".join(page)


def _columns(
    metric: str,
    what: str,
    scenario: str,
    variant: str,
    goal: str,
    found: str,
    spread: str,
    verdict: str,
    floor: str,
) -> str:
    left = f"{metric:<3}{what:<42}{scenario:<16}{variant:<8}"
    return f"{left}{goal:>10}{found:>24}   {spread:<21}{verdict:<7} {floor}".rstrip()
