"""`make compare`: our proxy beside Envoy, nginx and HAProxy, forwarding and refusing the same POST.

All proxies are kept to one core, the upstream and the load generator to the others. Rounds are interleaved
and each figure is compared within its round, so that what slows the machine for a while slows both sides.
CPU per request is the proxy's own (proc(5)): it holds even where the generator could not fill the core.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from statistics import median
from typing import Any, Final

from loadtests.figures import median_ratio
from loadtests.origin import ANSWER
from loadtests.peers import Case, Contender, contenders, nginx_command, nginx_origin_conf
from loadtests.raw_client import BODY, PATH, wire_request
from loadtests.running import (
    StartError,
    await_port,
    cpu_s,
    end_on_sigterm,
    free_port,
    pinned,
    running,
)

RESULTS: Final = Path(__file__).parent / "results"
OURS: Final = "backpressure"
BUSY: Final = 0.9
"""Below this share of its core a proxy was not at its most: its rate is the generator's or the upstream's."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where, as lists for taskset; None: wherever the system puts it."""

    proxy: str | None
    others: str | None


@dataclass(frozen=True, slots=True)
class Turn:
    """One contender with one case, started: where it listens, which process it is.

    `closes`: it ends the connection with every answer, so that each call pays for a new one.
    """

    name: str
    case: Case
    port: int
    pid: int
    closes: bool


def share_out(cores: Sequence[int], *, has_taskset: bool) -> Cores:
    """The first core for the proxies, the rest for upstream and generator."""
    if len(cores) < 2 or not has_taskset:
        return Cores(None, None)
    return Cores(str(cores[0]), ",".join(map(str, cores[1:])))


def generator_command(wrk: str | None, port: int, connections: int, seconds: float) -> list[str]:
    """wrk where there is one (whole seconds), else our own client."""
    if wrk is None:
        return [sys.executable, "-m", "loadtests.raw_client", str(port), str(connections), str(seconds)]
    script = str(Path(__file__).with_name("post.lua"))
    return [
        *(
            wrk,
            "--threads",
            "1",
            "--connections",
            str(connections),
            "--duration",
            f"{max(1, round(seconds))}s",
        ),
        *("--script", script, f"http://127.0.0.1:{port}{PATH}", "--", BODY.decode()),
    ]


def start_origin(stack: ExitStack, cores: Cores, folder: Path) -> tuple[int, str]:
    """The upstream, and what it is: nginx where there is one, else our own."""
    port = free_port()
    if shutil.which("nginx"):
        name, config = "nginx", folder / "origin.conf"
        config.write_text(nginx_origin_conf(port, ANSWER))
        command = nginx_command(config)
    else:
        name, command = "loadtests/origin.py", [sys.executable, "-m", "loadtests.origin", str(port)]
    process = stack.enter_context(running("origin", pinned(command, cores.others), folder))
    await_port(process, port, folder / "origin.log")
    return port, name


def start(
    stack: ExitStack, contender: Contender, case: Case, cores: Cores, origin_port: int, folder: Path
) -> Turn:
    """One proxy for one case, seen to do what the case asks before anything is measured."""
    port, name = free_port(), f"{contender.name}-{case}"
    config = folder / f"{name}.{contender.suffix}"
    config.write_text(contender.configure(case, port, origin_port))
    process = stack.enter_context(running(name, pinned(contender.command(config), cores.proxy), folder))
    log = folder / f"{name}.log"
    await_port(process, port, log)
    answers = [_probe(port) for _ in range(3)]  # the bucket holds one call
    status, closes = answers[-1]
    if status != (200 if case is Case.FORWARD else 429):
        raise StartError(f"{name} answers {answers}: {log.read_text(errors='replace')[-2000:]}")
    return Turn(contender.name, case, port, process.pid, closes)


def _probe(port: int) -> tuple[int, bool]:
    """The status of one call, sent as the generator sends it, and whether its connection is closed then."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(wire_request(port))
        answer = HTTPResponse(connection, method="POST")
        answer.begin()
        answer.read()
        return answer.status, answer.will_close


def measure(turn: Turn, wrk: str | None, cores: Cores, connections: int, seconds: float) -> dict[str, Any]:
    """One turn of one proxy. StartError if it did not do with every call what its case asks."""
    command = pinned(generator_command(wrk, turn.port, connections, seconds), cores.others)
    cpu_before_s = cpu_s(turn.pid)
    bound_s = seconds * 3 + 30
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=bound_s)
    cpu_used_s = cpu_s(turn.pid) - cpu_before_s
    if done.returncode:
        raise StartError(f"the generator failed against {turn.name}: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if told["broken"] or not told["requests"] or not _did(turn.case, told["good"], told["requests"]):
        raise StartError(f"{turn.name} did not {turn.case} every call: {told}")
    return {
        "name": turn.name,
        "case": turn.case.value,
        "closes": turn.closes,
        "per_s": told["requests"] / told["seconds"],
        "cpu_us": cpu_used_s / told["requests"] * 1e6,
        "busy": cpu_used_s / told["seconds"],
        "p50_ms": told["p50_ms"],
        "p99_ms": told["p99_ms"],
    }


def _did(case: Case, good: int, requests: int) -> bool:
    """Did the proxy do what the case asks? nginx's slowest bucket lets one call through every minute."""
    return good == requests if case is Case.FORWARD else good <= 1


def tabulate(rounds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each case and proxy: medians over the rounds, and ours against it, round by round."""
    rows = []
    for case, name in dict.fromkeys((one["case"], one["name"]) for one in rounds):
        own = [one for one in rounds if (one["case"], one["name"]) == (case, name)]
        ours = [one for one in rounds if (one["case"], one["name"]) == (case, OURS)]
        row: dict[str, Any] = {"case": case, "name": name, "closes": own[0]["closes"]}
        for figure in ("per_s", "cpu_us", "busy", "p50_ms", "p99_ms"):
            row[figure] = median(one[figure] for one in own)
        for figure in ("per_s", "cpu_us"):
            ratio = median_ratio([one[figure] for one in ours], [one[figure] for one in own])
            row[f"ours_{figure}_ratio"] = ratio
        rows.append(row)
    return rows


def render(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table. `*` marks a rate that was not bounded by the proxy."""
    head = f"{'case':<9}{'proxy':<14}{'req/s':>10} {'ours/it':>9}{'CPU us':>9}{'ours/it':>9}{'busy':>7}"
    lines = [head + f"{'p50 ms':>9}{'p99 ms':>9}"]
    lines += [
        f"{row['case']:<9}{row['name']:<14}{row['per_s']:>10.0f}{'*' if row['busy'] < BUSY else ' '}"
        f"{row['ours_per_s_ratio']:>9.2f}{row['cpu_us']:>9.1f}{row['ours_cpu_us_ratio']:>9.2f}"
        f"{row['busy']:>7.0%}{row['p50_ms']:>9.2f}{row['p99_ms']:>9.2f}"
        f"{'  closes the connection each time' if row['closes'] else ''}"
        for row in rows
    ]
    if any(row["busy"] < BUSY for row in rows):
        lines.append(f"* the proxy's core was less than {BUSY:.0%} busy: compare CPU, not req/s")
    return "\n".join(lines)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make compare", description=__doc__.partition("\n")[0])
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one proxy, in one case, in one round")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds of each turn before the rounds")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument(
        "--no-install", action="store_true", help="do without Envoy where it is not installed"
    )
    parser.add_argument("--no-wrk", action="store_true", help="use our own load generator")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON")
    return parser


def run(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All rounds, and what they were measured with."""
    cores = share_out(sorted(os.sched_getaffinity(0)), has_taskset=shutil.which("taskset") is not None)
    wrk = None if asked.no_wrk else shutil.which("wrk")
    found = contenders(free_port, install=not asked.no_install)
    rounds: list[dict[str, Any]] = []
    with ExitStack() as stack:
        origin_port, origin = start_origin(stack, cores, folder)
        turns = [
            start(stack, one, case, cores, origin_port, folder)
            for case in Case
            for one in found
            if case in one.cases
        ]
        used = {
            "proxies": ", ".join(f"{one.name} {one.version}" for one in found),
            "generator": "wrk" if wrk else "loadtests/raw_client.py",
            "upstream": origin,
            "cores": f"proxies {cores.proxy or 'unpinned'}, the rest {cores.others or 'unpinned'}",
        }
        print("\n".join(f"{what}: {value}" for what, value in used.items()), flush=True)
        for turn in turns:
            measure(turn, wrk, cores, asked.connections, asked.warm_up)  # connections, caches
        for number in range(asked.rounds):
            first = number % len(turns)
            in_turn = turns[first:] + turns[:first]
            rounds += [measure(turn, wrk, cores, asked.connections, asked.seconds) for turn in in_turn]
            print(f"round {number + 1} of {asked.rounds}", flush=True)
    order = {case.value: place for place, case in enumerate(Case)}
    rows = sorted(tabulate(rounds), key=lambda row: (order[row["case"]], row["name"] != OURS, row["name"]))
    return {"used": used, "rows": rows, "rounds": rounds}


def main(arguments: Sequence[str] | None = None) -> int:
    """0: measured. 1: something did not start, or did not do what its case asks."""
    asked = options().parse_args(arguments)
    end_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="backpressure-compare-") as folder:
        try:
            result = run(asked, Path(folder))
        except (StartError, subprocess.SubprocessError) as problem:
            print(problem, file=sys.stderr)
            return 1
    asked.results.mkdir(parents=True, exist_ok=True)
    written = asked.results / time.strftime("compare-%Y%m%d-%H%M%S.json")
    written.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{render(result['rows'])}\n\nwritten to {written}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
