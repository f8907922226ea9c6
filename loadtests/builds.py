"""`make compare-builds`: builds of ours beside each other, so that a change shows what it costs.

`make compare` puts one build beside the peers; two runs of it, a day apart, differ by more than most changes.
Here the builds take turns within one run. The turns are short, and the quarter that was hindered least
counts, for what else runs on the machine only ever adds to a call. Two equal builds differ by 3 to 8 % from
one start to the next, as their memory happens to lie: believe what is more, or shows again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from loadtests.cases import Case
from loadtests.compare.bench import Turn, add_options, set_up, start, start_origin
from loadtests.peers import build_of_ours
from loadtests.profiling import CASES, load
from loadtests.program import finish, parser_of, write_json
from loadtests.running import free_port

WARM_UP_S: Final = 1.0
BEST_SHARE: Final = 0.25


def options() -> argparse.ArgumentParser:
    parser = parser_of("compare-builds", __doc__, "the JSON")
    parser.add_argument(
        "--builds",
        type=builds,
        required=True,
        help="NAME=FOLDER,…: for PYTHONPATH, such as before=../old/build/compiled,now=build/compiled",
    )
    parser.add_argument("--cases", type=cases, default=list(CASES), help="such as forward,refuse")
    parser.add_argument("--rounds", type=int, default=14)
    parser.add_argument("--seconds", type=float, default=0.4, help="of one build, in one case, in one round")
    add_options(parser)
    return parser


def builds(text: str) -> dict[str, Path]:
    """`before=/a,now=b` as folders by name. ArgumentTypeError for what is no folder, or names one twice."""
    found: dict[str, Path] = {}
    for part in text.split(","):
        name, equals, folder = part.partition("=")
        if not (name and equals and (Path(folder) / "proxy").is_dir()):
            raise argparse.ArgumentTypeError(f"{part!r} is not NAME=FOLDER with a folder that holds `proxy`")
        if name in found:
            raise argparse.ArgumentTypeError(f"{name!r} names two builds")
        found[name] = Path(folder).resolve()
    return found


def cases(text: str) -> list[Case]:
    """`forward,sse` as cases, in their order. ArgumentTypeError for what is none of them."""
    asked = text.split(",")
    if unknown := set(asked) - set(CASES):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: none of {', '.join(CASES)}")
    return [case for case in CASES if case in asked]


def best(found: Sequence[float]) -> float:
    """The figure that a quarter of the rounds stay below."""
    return sorted(found)[int(len(found) * BEST_SHARE)]


def measure(asked: argparse.Namespace, folder: Path, case: Case) -> dict[str, list[float]]:
    """One case: the CPU of a call in each round, by build."""
    bench = set_up(folder, asked)
    with ExitStack() as stack:
        origin = start_origin(stack, bench, case)
        turns: dict[str, Turn] = {}
        for name, path in asked.builds.items():
            turns[name] = start(stack, bench, build_of_ours(path, free_port), case, origin)
        for turn in turns.values():
            load(bench, turn, WARM_UP_S)
        found: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(asked.rounds):
            for name, turn in turns.items():
                found[name].append(load(bench, turn, asked.seconds)["cpu_us"])
        return found


def render(case: Case, found: Mapping[str, Sequence[float]]) -> str:
    """A line for each build: microseconds of a call, and to those of the first."""
    first = best(next(iter(found.values())))
    lines = [f"{case:<16} CPU us    least  to the first"]
    for name, each in found.items():
        lines.append(f"  {name:<14} {best(each):6.1f}   {min(each):6.1f}  {best(each) / first:.2f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    asked = options().parse_args(arguments)
    rows: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="backpressure-builds-") as folder:
        for case in asked.cases:
            rows[case] = measure(asked, Path(folder), case)
            print(render(case, rows[case]), flush=True)
    named = {name: str(path) for name, path in asked.builds.items()}
    print(f"written to {write_json(asked.results, 'builds', {'builds': named, 'cpu_us': rows})}")
    return 0


if __name__ == "__main__":
    finish(main)
