"""What the rounds came to: a row for each load and proxy, and whether ours lies at or above every peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from statistics import median
from typing import Any, Final

from loadtests.compare.bench import DIRECT
from loadtests.compare_overload.contenders import TOLD, UNTOLD

Cell = Mapping[str, Any]

COLUMNS: Final = {
    "goodput": "goodput",
    "critical": "crit. ok",
    "critical_p99": "p99 x",
    "attempts": "attempts",
    "returns": "returns",
    "kept": "kept",
    "jain": "Jain",
    "peak": "peak",
    "wasted": "wasted",
    "proxy_busy": "busy",
    "proxy_waited": "waited",
    "late_p99_ms": "late ms",
    "served_late_ms": "origin ms",
}
"""The figures of a row and their titles."""
SHARES: Final = frozenset({"critical", "kept", "wasted", "proxy_busy", "proxy_waited"})
LEAST_JUDGED: Final = 1.0
"""Ours must lie at or above every peer from this load on; below it nobody has to choose."""
ROUNDING: Final = 1e-9
"""0.99 - 1.0 is a little less than -0.01."""


def tabulate(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """A row for each load and proxy: medians over its rounds, and the goodput's least and most.

    Void cells are left out while any stands; `void` says what was wrong with how many.
    """
    rows = []
    for factor, name in dict.fromkeys((one["factor"], one["name"]) for one in cells):
        own = [one for one in cells if (one["factor"], one["name"]) == (factor, name)]
        standing = [one for one in own if not one["void"]] or own
        row: dict[str, Any] = {"factor": factor, "name": name}
        row |= {figure: _median([one[figure] for one in standing]) for figure in COLUMNS}
        goodputs = [one["goodput"] for one in standing]
        row |= {"goodput_least": min(goodputs), "goodput_most": max(goodputs)}
        row["good_per_capacity"] = _median([one["good_per_capacity"] for one in standing])
        reasons = [one["void"] for one in own if one["void"]]
        row["void"] = f"{len(reasons)} of {len(own)} void: {reasons[-1]}" if reasons else ""
        rows.append(row)
    names = list(dict.fromkeys(row["name"] for row in rows))
    return sorted(rows, key=lambda row: (row["factor"], names.index(row["name"])))


def _median(values: Sequence[float]) -> float:
    """Of those that are numbers; nan of none."""
    return median([value for value in values if not isnan(value)] or [float("nan")])


def verdicts(cells: Sequence[Cell], least_band: float) -> list[dict[str, Any]]:
    """For ours, told and untold, at each load: the peer that it leads by the least, in goodput.

    A lead is the median of the differences round by round. Its noise band is half of their range, at least
    `least_band`. PASS: it leads. EVEN: what it lacks is within the band. MISS. VOID: no round stands. The row
    without a proxy is no peer.
    """
    found = []
    factors = sorted({one["factor"] for one in cells if one["factor"] >= LEAST_JUDGED})
    for ours in (TOLD, UNTOLD):
        for factor in factors:
            at = [one for one in cells if one["factor"] == factor]
            peers = dict.fromkeys(one["name"] for one in at if one["name"] not in (TOLD, UNTOLD, DIRECT))
            leads = [_lead(at, ours, peer, least_band) for peer in peers]
            if leads and any(one["name"] == ours for one in at):
                worst = min(leads, key=lambda lead: (lead["verdict"] != "VOID", lead["lead"]))
                found.append({"name": ours, "factor": factor, **worst})
    return found


def _lead(cells: Sequence[Cell], ours: str, peer: str, least_band: float) -> dict[str, Any]:
    mine, theirs = (
        {one["round"]: one["goodput"] for one in cells if one["name"] == name and not one["void"]}
        for name in (ours, peer)
    )
    leads = [mine[number] - theirs[number] for number in mine if number in theirs]
    if not leads:
        return {"against": peer, "lead": float("nan"), "band": float("nan"), "verdict": "VOID"}
    lead, band = median(leads), max(least_band, (max(leads) - min(leads)) / 2)
    verdict = "PASS" if lead >= 0 else "EVEN" if lead >= -band - ROUNDING else "MISS"
    return {"against": peer, "lead": lead, "band": band, "verdict": verdict}


def overall(judged: Sequence[Mapping[str, Any]], ours: str) -> str:
    """The verdict of one of ours over all loads: the worst of them."""
    own = {one["verdict"] for one in judged if one["name"] == ours}
    return next((verdict for verdict in ("VOID", "MISS", "EVEN", "PASS") if verdict in own), "not measured")


def render(rows: Sequence[Mapping[str, Any]], judged: Sequence[Mapping[str, Any]]) -> str:
    """The rows as one table for each load, and the verdicts as the last."""
    lines = []
    for factor in dict.fromkeys(row["factor"] for row in rows):
        head = "".join(f"{title:>10}" for title in COLUMNS.values())
        lines += [f"{f'{factor:g} x capacity':<20}{head}"]
        lines += [_line(row) for row in rows if row["factor"] == factor] + [""]
    lines += ["goodput at or above every peer, from 1x on"]
    lines += [
        f"  {one['name']:<18}{one['factor']:>4g}x  {one['lead']:+.3f} ± {one['band']:.3f}"
        f"  to {one['against']:<16}{one['verdict']}"
        for one in judged
    ]
    lines += [f"{ours}: {overall(judged, ours)}" for ours in (TOLD, UNTOLD)]
    return "\n".join(lines)


def _line(row: Mapping[str, Any]) -> str:
    cells = [
        f"{row[figure]:>10.1%}" if figure in SHARES else f"{_short(row[figure]):>10}" for figure in COLUMNS
    ]
    return f"  {row['name']:<18}" + "".join(cells) + (f"  {row['void']}" if row["void"] else "")


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"
