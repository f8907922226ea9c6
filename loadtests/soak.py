"""`make soak`: minutes of load at 80 % of capacity while faults come and go, and what is left of it.

Starts the simulated upstream, the proxy (`backpressure serve`, everything on) and the callers, each in a
process of its own; switches faults on and off by a seeded schedule; looks at the proxy every few seconds;
then lets the load end and judges: memory flat, nothing leaked, every call accounted for.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from loadtests.program import finish, parser_of, write_json
from loadtests.running import StartError, cpu_s, fetch, memory_kib, running, said
from loadtests.simulated import Running, upstream_and_proxy
from loadtests.soak_callers import OPEN_WITHIN_S
from loadtests.soak_plan import Plan
from loadtests.soak_verdict import Proxys, Sample, is_settled, judge, render, summary

SETTLE_WITHIN_S: Final = 30.0
"""Of the condition that everything is given back: more than any idle time of the configuration."""
LOOK_AGAIN_S: Final = 0.05


class Watch:
    """Looks at the proxy, and keeps what it saw."""

    def __init__(self, at: Running) -> None:
        self._at = at
        self._begun_at = time.monotonic()
        self.samples: list[Sample] = []

    def begin(self) -> None:
        """The load starts now, and with it the samples' time."""
        self._begun_at = time.monotonic()
        self.samples.clear()

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._begun_at

    def look(self) -> Sample:
        """One sample."""
        gauges = scraped(self._at)
        pid = self._at.pids["proxy"]
        folder, kib = Path(f"/proc/{pid}"), memory_kib(pid)
        sample = Sample(
            at_s=self.now_s,
            rss_mib=kib["Rss"] / 1024,
            pss_mib=kib["Pss"] / 1024,
            open_files=len(list((folder / "fd").iterdir())),
            threads=len(list((folder / "task").iterdir())),
            tasks=gauges["tasks"],
            connections=gauges["upstream_connections"],
            permits=gauges["in_flight"],
            waiting=gauges["queue_depth"],
        )
        self.samples.append(sample)
        return sample

    def until(self, holds: Callable[[Sample], bool], within_s: float) -> Sample:
        """Look again and again until it holds, or the time is over; the last sample either way."""
        give_up_at = time.monotonic() + within_s
        while not holds(sample := self.look()) and time.monotonic() < give_up_at:
            time.sleep(LOOK_AGAIN_S)
        return sample

    def base(self) -> Sample:
        """The proxy without load. It has served one call, so that what is made once is there."""
        chat = {"model": "demo-model", "messages": [{"role": "user", "content": "the first"}]}
        fetch(f"{self._at.proxy}/openai/v1/chat/completions", json.dumps(chat).encode())
        self.until(lambda sample: not sample.connections, SETTLE_WITHIN_S)
        return min((self.look() for _ in range(5)), key=lambda sample: (sample.open_files, sample.tasks))


def scraped(at: Running) -> dict[str, int]:
    """Every metric of the proxy, summed up over its labels; for permits, those of the upstreams only."""
    sums: dict[str, int] = {}
    for family in text_string_to_metric_families(at.metrics()):
        for sample in family.samples:
            name = sample.name.removeprefix("backpressure_")
            sums[name] = sums.get(name, 0) + int(sample.value)
    return sums


def switch(at: Running, mode: dict[str, Any]) -> None:
    """Put the upstream into a mode."""
    fetch(f"{at.upstream}/_demo/mode", json.dumps(mode).encode())


def soak(at: Running, plan: Plan, every_s: float, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the plan and return the summary."""
    watch = Watch(at)
    base = watch.base()
    before, cpu_before_s = proxys(at), cpu_s(at.pids["proxy"])
    fetch(f"{at.upstream}/_demo/reset", b"{}")
    ledger = folder / "callers.json"
    command = [sys.executable, "-m", "loadtests.soak_callers", str(at.port), str(ledger)]
    with running("callers", [*command, json.dumps(asdict(plan))], folder) as callers:
        watch.begin()
        faults = _go_through(at, plan, watch, every_s, say)
        try:
            callers.wait(OPEN_WITHIN_S * 2)
        except TimeoutExpired:
            raise StartError("the callers did not end: " + said(folder / "callers.log")) from None
    if not ledger.exists():
        raise StartError("the callers failed: " + said(folder / "callers.log"))
    watch.until(lambda sample: is_settled(base, sample), SETTLE_WITHIN_S)
    seen_by_callers = json.loads(ledger.read_text())
    after = proxys(at)
    own = Proxys(*(now - then for now, then in zip(after, before, strict=True)))
    seen_by_upstream = at.ledger()
    verdicts = judge(base, watch.samples, seen_by_callers, own, seen_by_upstream, plan.slots, plan.seconds)
    return {
        "plan": asdict(plan) | {"rate_per_s": plan.rate_per_s, "caps": [plan.model_cap, plan.tool_cap]},
        **summary(base, watch.samples, verdicts),
        **seen_by_callers,
        "proxy": asdict(own),
        "proxy_cores": (cpu_s(at.pids["proxy"]) - cpu_before_s) / watch.now_s,
        "upstream": seen_by_upstream,
        "faults": faults,
        "base": asdict(base),
        "samples": [asdict(sample) for sample in watch.samples],
    }


def proxys(at: Running) -> tuple[int, ...]:
    """The fields of `Proxys`, since the proxy started."""
    sums = scraped(at)
    names = [f"calls_{name}_total" for name in ("offered", "admitted", "refused", "left", "settled")]
    return tuple(sums.get(name, 0) for name in [*names, "crashes_total"])


def _go_through(
    at: Running, plan: Plan, watch: Watch, every_s: float, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Switch the faults and take the samples, each at its time, until the load's time is over."""
    due: list[tuple[float, dict[str, Any]]] = []
    for fault in plan.faults():
        due += [(fault.begins_s, fault.mode), (fault.ends_s, {"name": "ok"})]
    done = []
    for number in range(1, int(plan.seconds / every_s) + 1):
        while due and due[0][0] <= number * every_s:
            at_s, mode = due.pop(0)
            time.sleep(max(0.0, at_s - watch.now_s))
            switch(at, mode)
            done.append({"at_s": round(watch.now_s, 3), **mode})
        time.sleep(max(0.0, number * every_s - watch.now_s))
        sample = watch.look()
        if number % max(1, int(30 / every_s)) == 0:
            say(
                f"{sample.at_s:6.0f} s  {sample.rss_mib:6.1f} MiB  {sample.open_files:4} files  "
                f"{sample.tasks:4} tasks  {sample.permits:3} permits  {sample.waiting:4} waiting"
            )
    for _, mode in due:
        switch(at, mode)
    return done


def options() -> argparse.ArgumentParser:
    parser = parser_of("soak", __doc__, "the JSON")
    parser.add_argument("--seconds", type=float, default=600.0, help="length of the load")
    parser.add_argument("--slots", type=int, default=48, help="calls the upstream serves at once")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds the upstream takes for a call")
    parser.add_argument("--events", type=int, default=20, help="events of a stream")
    parser.add_argument("--gap", type=float, default=0.02, help="seconds between two of them")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two looks at the proxy")
    parser.add_argument("--seed", type=int, default=1, help="of the calls and of the faults")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all is as it should be. 1: a verdict failed. StartError when something did not start."""
    asked = options().parse_args(arguments)
    plan = Plan(asked.seconds, asked.slots, asked.latency, asked.events, asked.gap, asked.seed)
    serving = ["--slots", str(plan.slots), "--latency", str(plan.latency_s)]
    serving += ["--events", str(plan.events), "--gap", str(plan.gap_s), "--seed", str(plan.seed)]
    with tempfile.TemporaryDirectory(prefix="backpressure-soak-") as name:
        folder = Path(name)
        with upstream_and_proxy(folder, serving, plan.proxy_yaml) as at:
            print(
                f"offering {plan.rate_per_s:.0f} calls/s for {plan.seconds:g} s to {plan.slots} slots, "
                f"with {len(list(plan.faults()))} faults (seed {plan.seed})",
                flush=True,
            )
            found = soak(at, plan, asked.every, folder, partial(print, flush=True))
    written = write_json(asked.results, "soak", found)
    print(f"\n{render(found)}\n\nwritten to {written}")
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    finish(main)
