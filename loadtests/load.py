"""`make load`: the proxy overloaded at several times its upstream's capacity, and what came of it.

Starts the simulated upstream (known capacity), the proxy in front of it and locust's agents, each in a
process of its own; lets the agents warm up; then measures. The upstream's ledger is the oracle for goodput
and for calls in flight: the proxy's own numbers are only asked why it refused.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any, Final

from loadtests.agents import KINDS, CallRecord
from loadtests.program import finish, parser_of, write_json
from loadtests.report import Plan, Window, render, summarise
from loadtests.running import StartError, cpu_s, running, said
from loadtests.simulated import Running, upstream_and_proxy

LOCUSTFILE: Final = Path(__file__).parent / "locustfile.py"
ARRIVING_WITHIN_S: Final = 30.0
LONGEST_PATIENCE_S: Final = max(kind.patience_s for kind in KINDS)


def proxy_yaml(slots: int, data_port: int, control_port: int, upstream: str) -> str:
    """The proxy's configuration: everything as by default but the cap, which is the upstream's capacity.

    The upstream closes idle connections after 5 s, so ours are given up before that.
    """
    return f"""\
listen: 127.0.0.1:{data_port}
admin: {{listen: 127.0.0.1:{control_port}}}
drain: 1s
upstreams:
  demo:
    url: {upstream}
    dialect: openai
    concurrency: {slots}
    connections: {{idle_for: 4s}}
routes:
  - {{name: chat, path: /openai/, upstream: demo}}
"""


def locust_command(host: str, rate_per_s: float, users: int, seconds: float, records: Path) -> list[str]:
    """Locust without its web page. It ends by itself once every call has ended."""
    return [
        *(sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", host),
        *("--headless", "--only-summary", "--exit-code-on-error", "0", "--loglevel", "WARNING"),
        *("--users", str(users), "--spawn-rate", str(users)),
        *("--calls-per-second", str(rate_per_s / users), "--arrive-for", str(seconds)),
        *("--records", str(records)),
    ]


def overload(at: Running, plan: Plan, warm_up_s: float, users: int, folder: Path) -> dict[str, Any]:
    """Offer the plan's load and return the summary."""
    records = folder / "records.jsonl"
    # Users spawn within a second; one second more than needed keeps the arrivals up to the window's end.
    arrive_for_s = warm_up_s + plan.seconds + 1
    command = locust_command(at.proxy, plan.rate_per_s, users, arrive_for_s, records)
    with running("locust", command, folder) as locust:
        _await_arrivals(at, folder)
        time.sleep(warm_up_s)
        pids = {**at.pids, "locust": locust.pid}
        begun_at, before = time.monotonic(), at.ledger()
        cpu_before = {name: cpu_s(pid) for name, pid in pids.items()}
        time.sleep(plan.seconds)
        ended_at, after = time.monotonic(), at.ledger()
        cpu_used_s = {name: cpu_s(pid) - cpu_before[name] for name, pid in pids.items()}
        with suppress(TimeoutExpired):  # then it is ended, and the calls still open make the run void
            locust.wait(LONGEST_PATIENCE_S * 2)
    window = Window(begun_at, ended_at, before, after, cpu_used_s)
    return summarise(plan, window, read_records(records), at.ledger(), at.metrics())


def _await_arrivals(at: Running, folder: Path) -> None:
    give_up_at = time.monotonic() + ARRIVING_WITHIN_S
    while time.monotonic() < give_up_at:
        if at.ledger()["arrivals"]:
            return
        time.sleep(0.05)
    raise StartError("no call reached the upstream: " + said(folder / "locust.log"))


def read_records(path: Path) -> list[CallRecord]:
    """The calls that locust wrote down, in the order of their start."""
    return [CallRecord(**json.loads(line)) for line in path.read_text().splitlines()]


def options() -> argparse.ArgumentParser:
    parser = parser_of("load", __doc__, "the JSON")
    parser.add_argument("--slots", type=int, default=40, help="calls the upstream serves at once; the cap")
    parser.add_argument("--latency", type=float, default=0.2, help="seconds the upstream takes for a call")
    parser.add_argument("--factor", type=float, default=3.0, help="offered calls as a multiple of capacity")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the measured window")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds of load before it")
    parser.add_argument("--users", type=int, default=100, help="agents; each is a caller of its own")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """0: the run stands. 1: it is void. StartError when something did not start."""
    asked = options().parse_args(arguments)
    plan = Plan(asked.slots, asked.latency, asked.factor, asked.seconds)
    serving = ["--slots", str(plan.slots), "--latency", str(plan.latency_s)]
    with tempfile.TemporaryDirectory(prefix="backpressure-load-") as name:
        folder = Path(name)
        with upstream_and_proxy(folder, serving, partial(proxy_yaml, plan.slots)) as at:
            told = f"{plan.rate_per_s:.0f} calls/s to {plan.capacity_per_s:.0f}/s of capacity"
            print(
                f"offering {told} for {asked.seconds:g} s, after {asked.warm_up:g} s of warm-up", flush=True
            )
            summary = overload(at, plan, asked.warm_up, asked.users, folder)
    written = write_json(asked.results, "load", summary)
    print(f"{render(summary)}\n\nwritten to {written}")
    return 1 if summary["void"] else 0


if __name__ == "__main__":
    finish(main)
