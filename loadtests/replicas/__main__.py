"""`make replicas`: one set of limits over several replicas and a real Redis; goals and findings."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from loadtests.program import finish, parser_of, write_json
from loadtests.replicas import bucket, cap, cost, faults, returns, rude, trips
from loadtests.replicas.site import build
from loadtests.replicas.table import Rows, render

Scenario = Callable[[Path], Rows]


def scenarios(*, quick: bool) -> dict[str, Scenario]:
    """By name. `quick` is a look: shorter, and its goals are not to be taken at their word."""
    part = 0.4 if quick else 1.0
    found: dict[str, Scenario] = {
        "bucket-2": partial(bucket.measure, bucket.Plan(2, 200.0, 3.5 if quick else 12.0, 0.98)),
        "bucket-4": partial(bucket.measure, bucket.Plan(4, 200.0, 63.0 * part, 0.98)),
        "bucket-4-churn": partial(bucket.measure, bucket.Plan(4, 200.0, 63.0 * part, 0.98, churn=True)),
        "bucket-16": partial(bucket.measure, bucket.Plan(16, 100.0, 63.0 * part, 0.95)),
        "bucket-16-churn": partial(bucket.measure, bucket.Plan(16, 100.0, 63.0 * part, 0.95, churn=True)),
        "cap-4": partial(cap.measure, cap.Plan(4, 10, 0.1, 30.0 * part, 0.95)),
        "cap-4-skew": partial(cap.measure, cap.Plan(4, 10, 0.1, 30.0 * part, 0.95, skew=8.0)),
        "cap-4-kill": partial(cap.measure, cap.Plan(4, 10, 0.1, max(16.0, 30.0 * part), 0.95, kill=True)),
        "trips": partial(trips.measure, trips.Plan(4, 120.0, 5.0, 20.0 * part)),
        "cost": partial(cost.measure, cost.Plan(1 if quick else 5, 3.0)),
    }
    for name, roams in (("returns", False), ("returns-roaming", True)):
        found[name] = partial(returns.measure, returns.Plan(4, 100.0, 1.5, 30.0 * part, roams))
    for fault in faults.FAULTS:
        away_s = {"stopped": 10.0, "paused": 2.0}.get(fault, 0.0)
        found[fault] = partial(faults.measure, faults.Plan(fault, 4, 200.0, away_s))
    found["rude"] = partial(rude.measure, rude.Plan(4, 160.0, 3, 10.0 * part))
    found["rude-no-breaker"] = partial(rude.measure, rude.Plan(4, 160.0, 3, 10.0 * part, budget_alone=True))
    return found


def options() -> argparse.ArgumentParser:
    parser = parser_of("replicas", __doc__, "the JSON")
    parser.add_argument("--quick", action="store_true", help="a look: shorter loads, fewer rounds")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="such as bucket-4,cost")
    return parser


def play_all(known: Mapping[str, Scenario], only: Sequence[str]) -> list[dict[str, object]]:
    """The rows of all that were asked for, told as they come. KeyError for a name that is none."""
    rows: list[dict[str, object]] = []
    for name in only or known:
        with tempfile.TemporaryDirectory(prefix="backpressure-replicas-") as folder:
            found = [asdict(row) for row in known[name](Path(folder) / name).rows]
        print(render(found), flush=True)
        rows += found
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every goal was met. 1: one was missed. StartError when something did not start."""
    parser = options()
    asked = parser.parse_args(arguments)
    known = scenarios(quick=asked.quick)
    if wrong := set(asked.only) - set(known):
        parser.error(f"no such scenario: {', '.join(sorted(wrong))}; there are {', '.join(known)}")
    used = build()
    print(f"build: {used}", flush=True)
    rows = play_all(known, asked.only)
    written = write_json(asked.results, "replicas", {"build": used, "quick": asked.quick, "rows": rows})
    print(f"\nwritten to {written}")
    return int(any(row["verdict"] == "MISS" for row in rows))


if __name__ == "__main__":
    finish(main)
