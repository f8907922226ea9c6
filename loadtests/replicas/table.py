"""Rows: what a scenario found beside its goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["PASS", "MISS", "VOID", "-"]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `found` is a number for machines, `says` the same and more for people.

    A row without a goal is for the reader: its verdict is "-".
    """

    scenario: str
    what: str
    goal: str
    found: float
    says: str
    verdict: Verdict


@dataclass(slots=True)
class Rows:
    """The rows of one scenario. `void` says why its load proves nothing, or is ""."""

    scenario: str
    rows: list[Row]
    void: str = ""

    def at_most(self, what: str, found: float, goal: float, unit: str = "", says: str = "") -> None:
        self._judge(what, found, found <= goal, f"<= {goal:g}{unit}", unit, says)

    def at_least(self, what: str, found: float, goal: float, unit: str = "", says: str = "") -> None:
        self._judge(what, found, found >= goal, f">= {goal:g}{unit}", unit, says)

    def note(self, what: str, found: float, unit: str = "", says: str = "") -> None:
        self.rows.append(Row(self.scenario, what, "", found, _words(found, unit, says), "-"))

    def _judge(self, what: str, found: float, ok: bool, goal: str, unit: str, says: str) -> None:
        verdict: Verdict = "VOID" if self.void else "PASS" if ok else "MISS"
        words = _words(found, unit, f"{says}; {self.void}" if says and self.void else says or self.void)
        self.rows.append(Row(self.scenario, what, goal, found, words, verdict))


def _words(found: float, unit: str, says: str) -> str:
    shown = f"{found:.4g}{unit}"
    return f"{shown} ({says})" if says else shown


def render(rows: Sequence[dict[str, Any]]) -> str:
    """All rows as a page for people."""
    wide = max((len(row["what"]) for row in rows), default=0)
    lines, last = [], ""
    for row in rows:
        if row["scenario"] != last:
            last = row["scenario"]
            lines += ["", last]
        lines.append(f"  {row['verdict']:<5}{row['what']:<{wide}}  {row['goal']:<12}{row['says']}")
    return "\n".join(lines)
