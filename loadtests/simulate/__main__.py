"""`make simulate`: OB-1, the overload benchmark on a virtual clock; the goals, and what was found."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from loadtests.program import finish, parser_of, place
from loadtests.simulate.grid import results, tasks_of
from loadtests.simulate.plots import can_draw, draw
from loadtests.simulate.report import judge, render
from loadtests.simulate.scenarios import SCENARIOS

QUICK: Final = ("u1@0.5", "u1@1.5", "u1@2", "u1@5", "u1@10", "u2@2", "trigger")


def options() -> argparse.ArgumentParser:
    parser = parser_of("simulate", __doc__ or "", "the JSON and the plots")
    parser.add_argument(
        "--seeds", type=int, default=10, help="runs of each scenario, with chance of their own"
    )
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="NAME", help="scenarios, such as u1@2 or 'u2@*'"
    )
    parser.add_argument("--quick", action="store_true", help="a few scenarios alone, with 3 seeds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every goal is met. 1: one is missed. 2: nothing has the name that was asked for."""
    asked = options().parse_args(arguments)
    seeds, patterns = (min(asked.seeds, 3), QUICK) if asked.quick else (asked.seeds, asked.only)
    tasks = tasks_of(patterns, seeds)
    if not tasks:
        print("no scenario has that name; there are: " + " ".join(SCENARIOS), file=sys.stderr)
        return 2
    begun = time.monotonic()
    by_seed: dict[int, dict[tuple[str, str], Any]] = {}
    shown: dict[str, Any] = {}
    calls = 0
    for (name, variant, seed), found, curve in results(tasks, asked.jobs):
        by_seed.setdefault(seed, {})[name, variant] = found
        calls += found["calls"]
        if curve:
            shown[f"{name}/{variant}"] = curve
    lines = judge(by_seed)
    print(render(lines, seeds))
    took = time.monotonic() - begun
    print(f"{len(tasks)} runs, {calls:,} calls in {took:.0f} s ({calls / took:,.0f} a second)")
    file = place(asked.results, "simulate").with_suffix(".json")
    kept = {
        f"{name}/{variant}/{seed}": found
        for seed, runs in sorted(by_seed.items())
        for (name, variant), found in runs.items()
    }
    file.write_text(json.dumps({"seeds": seeds, "table": lines, "runs": kept, "curves": shown}) + "\n")
    print(f"written to {file}")
    if can_draw():
        for drawn in draw(by_seed, shown, file.with_suffix("")):
            print(f"drawn: {drawn}")
    else:
        print("no plots: matplotlib is not installed (`make load` installs it, as extra `load`)")
    return 1 if any(line["verdict"] == "MISSED" for line in lines) else 0


if __name__ == "__main__":
    finish(main)
