"""`make compare-overload`: goodput of proxies at 0.5 to 10 times what the upstream can do, ours beside peers.

Each cell starts everything anew: an upstream that congests, one proxy kept to one core, and callers that come
whether or not they are served and retry as SDKs do. All proxies of a round are asked the same calls.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from loadtests.compare.bench import DIRECT, Cores, share_out
from loadtests.compare.chart import can_draw
from loadtests.compare_overload.cell import measure
from loadtests.compare_overload.chart import draw
from loadtests.compare_overload.contenders import TOLD, Entrant, entrants
from loadtests.compare_overload.figures import figures
from loadtests.compare_overload.schedule import Plan
from loadtests.compare_overload.table import render, tabulate, verdicts
from loadtests.program import finish, parser_of, write_json
from loadtests.running import StartError, free_port

FACTORS: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
UNLOADED: Final = 0.1
"""The load at which a call meets nobody else."""


def options() -> argparse.ArgumentParser:
    parser = parser_of("compare-overload", __doc__, "the JSON and the PNG")
    parser.add_argument("--factors", type=factors, default=list(FACTORS), help="such as 1,10")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one cell that are measured")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds of the same load before them")
    parser.add_argument("--slots", type=int, default=10, help="calls the upstream serves at full speed")
    parser.add_argument("--service", type=float, default=0.1, help="seconds that a call takes then")
    parser.add_argument("--patience", type=float, default=1.0, help="times 5, 10 and 20 s, by class")
    parser.add_argument("--seed", type=int, default=1, help="of the first round's calls")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=[], help="these rows, such as direct,haproxy"
    )
    parser.add_argument(
        "--no-install", action="store_true", help="do without Envoy where it is not installed"
    )
    return parser


def factors(text: str) -> list[float]:
    """`1,10` as numbers, ascending. ValueError for what is none."""
    return sorted({float(word) for word in text.split(",")})


def chosen(plan: Plan, asked: argparse.Namespace) -> list[Entrant | None]:
    """The rows that were asked for; None is the upstream without a proxy."""
    found: list[Entrant | None] = [None, *entrants(plan, free_port, install=not asked.no_install)]
    if not asked.only:
        return found
    return [one for one in found if name_of(one) in asked.only]


def name_of(entrant: Entrant | None) -> str:
    return entrant.name if entrant else DIRECT


def unloaded(plan: Plan, cores: Cores, folder: Path) -> tuple[float, str]:
    """p99 of a call's seconds when the upstream has nothing else to do, and why that proves nothing or ""."""
    alone = replace(plan, factor=UNLOADED)
    found = figures(alone, measure(None, alone, cores, folder), unloaded_p99_s=float("nan"))
    return found["p99_s"], found["void"]


def run(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All cells of all rounds, and what they were measured with.

    Each load begins with another proxy in every round, so that none is always the first.
    """
    cores = share_out(sorted(os.sched_getaffinity(0)), has_taskset=shutil.which("taskset") is not None)
    plan = Plan(asked.slots, asked.service, 1.0, asked.warm_up, asked.seconds, asked.seed, asked.patience)
    rows = chosen(plan, asked)
    unloaded_s, void = unloaded(plan, cores, folder)
    used = {
        "proxies": ", ".join(f"{one.name} {one.contender.version}" for one in rows if one),
        "upstream": f"{plan.slots} slots of {plan.service_s * 1000:g} ms: {plan.capacity_per_s:g} calls/s",
        "unloaded p99": f"{unloaded_s * 1000:.1f} ms" + (f", VOID: {void}" if void else ""),
        "cores": f"proxies {cores.proxy or 'unpinned'}, the rest {cores.others or 'unpinned'}",
    }
    print("\n".join(f"{what}: {value}" for what, value in used.items()), flush=True)
    cells: list[dict[str, Any]] = []
    for number in range(asked.rounds):
        for factor in asked.factors:
            here = replace(plan, factor=factor, seed=plan.seed + number)
            first = number % len(rows)
            for row in rows[first:] + rows[:first]:
                try:
                    found = measure(row, here, cores, folder)
                except StartError as problem:
                    if name_of(row) in (DIRECT, TOLD):
                        raise
                    print(f"left out: {problem}", flush=True)
                    rows.remove(row)
                    continue
                cell = {"name": name_of(row), "factor": factor, "round": number}
                cell |= figures(here, found, unloaded_s)
                cell["good_per_capacity"] = cell["good_per_s"] / here.capacity_per_s
                cells.append(cell)
                print(f"round {number + 1}: {factor:g}x {cell['name']}: {cell['goodput']:.3f}", flush=True)
    least_band = plan.service_s / plan.seconds  # the calls in flight at one end of the window
    return {
        "used": used,
        "plan": asdict(plan),
        "verdicts": verdicts(cells, least_band),
        "rows": tabulate(cells),
        "cells": cells,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """0: measured. StartError when ours or the upstream did not start."""
    asked = options().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="backpressure-overload-") as folder:
        result = run(asked, Path(folder))
    written = write_json(asked.results, "compare-overload", result)
    print(f"\n{render(result['rows'], result['verdicts'])}\n\nwritten to {written}")
    if can_draw():
        draw(result["rows"], written.with_suffix(".png"))
        print(f"       and {written.with_suffix('.png')}")
    else:
        print("no picture: matplotlib is not installed (extra `load`, which `make` installs)")
    return 0


if __name__ == "__main__":
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # for all that is started: callers hold many
    finish(main)
