"""What the rounds came to: a row for each case and proxy, and a verdict for each goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from statistics import median
from typing import Any, Final

from loadtests.cases import GOALS, Case, Goal
from loadtests.compare.bench import DIRECT
from loadtests.figures import median_ratio
from loadtests.peers import ENVOYS, OURS

Round = Mapping[str, Any]

CLOSED_LOOP: Final = (Case.FORWARD, Case.TLS, Case.REFUSE, Case.LARGE)
_OF_CALLS: Final = {
    "per_s": "calls/s",
    "cpu_us": "CPU us",
    "busy": "busy",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
}
COLUMNS: Final[Mapping[Case, Mapping[str, str]]] = {
    **dict.fromkeys(CLOSED_LOOP, _OF_CALLS),
    Case.SSE: {
        "cpu_us": "CPU us",
        "per_s": "events/s",
        "delivered": "came",
        "busy": "busy",
        "p50_ms": "p50 ms",
        "p99_ms": "p99 ms",
    },
    Case.MEMORY: {"kb_each": "kB each", "kb_each_more": "kB more", "base_mb": "base MB"},
    Case.LATENCY: {
        "added_p99_ms": "+p99 ms",
        "added_p50_ms": "+p50 ms",
        "per_s": "calls/s",
        "direct_p99_ms": "direct",
        "p99_ms": "p99 ms",
        "p99_of_all_ms": "of all",
        "left_out": "left out",
        "late_p99_ms": "late ms",
    },
}
"""The figures of a case and their titles."""
COMPARED: Final = {
    **dict.fromkeys(CLOSED_LOOP, ("per_s", "cpu_us")),
    Case.SSE: ("cpu_us",),
    Case.MEMORY: ("kb_each",),
    Case.LATENCY: ("added_p99_ms",),
}
"""The figures of which ours is divided by each peer's, round by round."""


def tabulate(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """A row for each case and proxy: medians over its rounds, and ours against it, round by round.

    Void rounds are left out of the medians while any stands; `void` says what was wrong with how many.
    """
    rows = []
    for case, name in dict.fromkeys((one["case"], one["name"]) for one in rounds):
        own = [one for one in rounds if (one["case"], one["name"]) == (case, name)]
        standing = [one for one in own if not one["void"]] or own
        row: dict[str, Any] = {"case": case, "name": name, "closes": own[0]["closes"], "note": own[0]["note"]}
        row |= {figure: median(one[figure] for one in standing) for figure in COLUMNS[Case(case)]}
        row |= {f"ours_{figure}_ratio": ratio(rounds, case, name, figure) for figure in COMPARED[Case(case)]}
        reasons = [one["void"] for one in own if one["void"]]
        row["void"] = f"{len(reasons)} of {len(own)} void: {reasons[-1]}" if reasons else ""
        rows.append(row)
    place = {case.value: number for number, case in enumerate(Case)}
    return sorted(rows, key=lambda row: (place[row["case"]], row["name"] != OURS, row["name"]))


def pairs(rounds: Sequence[Round], case: str, name: str) -> list[tuple[Round, Round]]:
    """Ours and a peer's of the same round; rounds that one of them lacks are left out."""
    ours, theirs = (
        {one["round"]: one for one in rounds if (one["case"], one["name"]) == (case, who)}
        for who in (OURS, name)
    )
    return [(ours[number], theirs[number]) for number in ours if number in theirs]


def ratio(rounds: Sequence[Round], case: str, name: str, figure: str) -> float:
    """The median of the ratios of the rounds that stand, of all rounds if none does; nan without any."""
    found = pairs(rounds, case, name)
    found = [pair for pair in found if not (pair[0]["void"] or pair[1]["void"])] or found
    if not found or any(not theirs[figure] for _, theirs in found):
        return float("nan")
    return median_ratio([ours[figure] for ours, _ in found], [theirs[figure] for _, theirs in found])


def verdicts(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Each goal against each Envoy that was measured: the figure, PASS or MISS, and by what it was judged.

    A rate is a core's own only when the core was full. Where one was not, ours or Envoy's, the CPU of a
    call is compared instead: its inverse is the rate of a full core. `VOID`: no round stands.
    """
    found = []
    for case, goal in GOALS.items():
        names = {one["name"] for one in rounds if one["case"] == case.value}
        against = [name for name in ENVOYS if name in names] if goal.is_ratio else [OURS]
        if OURS in names:
            found += [_verdict(rounds, case, goal, name) for name in against]
    return found


def _verdict(rounds: Sequence[Round], case: Case, goal: Goal, name: str) -> dict[str, Any]:
    both = pairs(rounds, case.value, name)
    stand = [pair for pair in both if not (pair[0]["void"] or pair[1]["void"])]
    by = goal.figure
    if not goal.is_ratio:
        value = median(ours[goal.figure] for ours, _ in stand or both)
    elif goal.figure == "per_s" and len(stand) < len(both):
        by, stand = "cpu_us", both
        value = median(theirs["cpu_us"] / ours["cpu_us"] for ours, theirs in both)
    else:
        value = ratio(rounds, case.value, name, goal.figure)
    verdict = "PASS" if goal.is_met(value) else "MISS"
    return {
        "case": case.value,
        "said": goal.said,
        "against": name if goal.is_ratio else DIRECT,
        "value": value,
        "bound": goal.bound,
        "at_least": goal.at_least,
        "by": by,
        "rate": ratio(rounds, case.value, name, "per_s") if "per_s" in COMPARED[case] else None,
        "verdict": verdict if stand and not isnan(value) else "VOID",
    }


def render(rows: Sequence[Round], judged: Sequence[Round]) -> str:
    """The rows as one table for each case, and the goals as the last."""
    lines = []
    for case, columns in COLUMNS.items():
        own = [row for row in rows if row["case"] == case.value]
        if own:
            compared = COMPARED[case]
            head = [
                f"{title:>9}{' ours/it' if figure in compared else ''}" for figure, title in columns.items()
            ]
            lines += [f"{case.value:<15}" + "".join(head)]
            lines += [_line(row, columns, compared) for row in own] + [""]
    if any(row["closes"] for row in rows):
        lines += ["closes: it ends the connection with every answer, and each call opens a new one", ""]
    lines += [f"{'goal':<9}{'what':<25}{'against':<14}{'found':>8}{'bound':>9}  verdict"]
    lines += [_goal_line(one) for one in judged]
    if any(one["by"] == "cpu_us" and one["said"] != GOALS[Case.SSE].said for one in judged):
        lines += ["by CPU: a core was not full, so the CPU of a call was compared and not the rates"]
    return "\n".join(lines)


def _line(row: Round, columns: Mapping[str, str], compared: Sequence[str]) -> str:
    cells = []
    for figure in columns:
        value = row[figure]
        cells.append(f"{value:>9.1%}" if figure in ("busy", "delivered") else f"{_short(value):>9}")
        if figure in compared:
            cells.append(f"{row[f'ours_{figure}_ratio']:>8.2f}")
    remarks = [row["note"], "closes" if row["closes"] else "", row["void"]]
    return f"  {row['name']:<13}" + "".join(cells) + "".join(f"  {remark}" for remark in remarks if remark)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _goal_line(one: Round) -> str:
    bound = f"{'>=' if one['at_least'] else '<='} {one['bound']:g}"
    by = f"  by CPU; {one['rate']:.2f} by calls/s" if one["by"] == "cpu_us" and one["rate"] else ""
    what = f"{one['case']:<9}{one['said']:<25}{one['against']:<14}"
    return f"{what}{one['value']:>8.2f}{bound:>9}  {one['verdict']}{by}"
