"""`make compare`: the cases of issue 3's "Fast" table, measured for every proxy that this machine has.

All proxies are kept to one core, the upstream and the load generator to the others. Rounds are interleaved
and each figure is compared within its round, so that what slows the machine for a while slows both sides.
CPU is the proxy's own (proc(5)): it holds even where the generator could not fill the core.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from loadtests.cases import Case
from loadtests.compare import calls, latency, streams
from loadtests.compare.bench import DIRECT, Bench, Turn, add_options, set_up, start, start_origin
from loadtests.compare.chart import can_draw, draw
from loadtests.compare.table import render, tabulate, verdicts
from loadtests.peers import ENVOYS, OURS, Contender, contenders
from loadtests.program import finish, parser_of, write_json
from loadtests.running import StartError, free_port


def options() -> argparse.ArgumentParser:
    parser = parser_of("compare", __doc__, "the JSON and the PNG")
    parser.add_argument("--cases", type=cases, default=list(Case), help="such as forward,sse")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=[], help="these peers beside ours"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one proxy, in one case, in one round")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds of each turn before the rounds")
    add_options(parser)
    parser.add_argument("--idle-streams", type=int, default=1000, help="of the memory case")
    parser.add_argument(
        "--no-install", action="store_true", help="do without Envoy where it is not installed"
    )
    return parser


def cases(text: str) -> list[Case]:
    """`forward,sse` as cases, in the order of the table. ValueError for what is none."""
    asked = {Case(word.strip()) for word in text.split(",")}
    return [case for case in Case if case in asked]


def measure(bench: Bench, turn: Turn, seconds: float, origin_port: int) -> dict[str, Any]:
    """One turn of one proxy, by what its case asks, under the names that the table needs."""
    match turn.case:
        case Case.SSE:
            figures = streams.measure_events(bench, turn, seconds)
        case Case.MEMORY:
            figures = streams.measure_memory(bench, turn, seconds)
        case Case.LATENCY:
            figures = latency.measure(bench, turn, seconds, origin_port)
        case _:
            figures = calls.measure(bench, turn, seconds)
    named = {"name": turn.name, "case": turn.case.value, "closes": turn.closes, "note": turn.note}
    return named | figures


def measure_case(bench: Bench, case: Case, found: Sequence[Contender]) -> list[dict[str, Any]]:
    """All rounds of one case. Each round begins with another proxy, so that none is always the first."""
    asked, able = bench.asked, [one for one in found if case in one.cases]
    if case is Case.LATENCY:  # the paced client cannot call as often as half of what nginx and HAProxy do
        able = [one for one in able if one.name in (OURS, *ENVOYS)]
    rounds: list[dict[str, Any]] = []
    with ExitStack() as stack:
        upstream = start_origin(stack, bench, case)
        begin = partial(start, bench=bench, case=case, upstream=upstream)
        turns: list[Turn | Contender]
        if case is Case.MEMORY:
            turns = list(able)  # started anew for each round
        else:
            turns = list(started(stack, begin, able))
            turns += [Turn(DIRECT, case, upstream[0], 0)] if case is Case.SSE else []
            for one in turns:
                if asked.warm_up and isinstance(one, Turn):
                    measure(bench, one, asked.warm_up, upstream[0])  # connections, caches
        for number in range(asked.rounds):
            first = number % len(turns)
            for one in turns[first:] + turns[:first]:
                with ExitStack() as own:
                    turn = begin(own, contender=one) if isinstance(one, Contender) else one
                    rounds.append(measure(bench, turn, asked.seconds, upstream[0]) | {"round": number})
            print(f"{case}: round {number + 1} of {asked.rounds}", flush=True)
    return rounds


def started(stack: ExitStack, begin: Callable[..., Turn], able: Sequence[Contender]) -> Iterator[Turn]:
    """Those that came up. Ours and Envoy must (StartError); another is left out, and that is said."""
    for contender in able:
        try:
            yield begin(stack, contender=contender)
        except StartError as problem:
            if contender.name in (OURS, *ENVOYS):
                raise
            print(f"left out: {problem}", flush=True)


def run(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All rounds of all cases, and what they were measured with."""
    bench = set_up(folder, asked)
    found = contenders(free_port, install=not asked.no_install)
    if asked.only:
        found = [one for one in found if one.name in (OURS, *asked.only)]
    used = {
        "proxies": ", ".join(f"{one.name} {one.version}" for one in found),
        "python": " ".join(sys.version.split()),
        "generator": "wrk" if bench.wrk else "loadtests/raw_client.py",
        "upstream": "nginx" if shutil.which("nginx") else "loadtests/origin.py",
        "cores": f"proxies {bench.cores.proxy or 'unpinned'}, the rest {bench.cores.others or 'unpinned'}",
    }
    print("\n".join(f"{what}: {value}" for what, value in used.items()), flush=True)
    rounds = [one for case in asked.cases for one in measure_case(bench, case, found)]
    return {"used": used, "verdicts": verdicts(rounds), "rows": tabulate(rounds), "rounds": rounds}


def main(arguments: Sequence[str] | None = None) -> int:
    """0: measured. StartError when something did not start, or did not do what its case asks."""
    asked = options().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="backpressure-compare-") as folder:
        result = run(asked, Path(folder))
    written = write_json(asked.results, "compare", result)
    print(f"\n{render(result['rows'], result['verdicts'])}\n\nwritten to {written}")
    if can_draw():
        picture = written.with_suffix(".png")
        draw(result["rows"], result["verdicts"], picture)
        print(f"       and {picture}")
    else:
        print("no picture: matplotlib is not installed (`make compare` installs it, as extra `load`)")
    return 0


if __name__ == "__main__":
    finish(main)
