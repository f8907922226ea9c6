"""What a decision of the gate costs in microseconds, by how many wait.

    make decisions

`settle` ends a call and serves the next; `queue` lets one wait, by displacing one of its own class where the
queue is full; `displace` is a more important one; `refuse` books a ticket; `too early` is its holder at once.

The gate is the real one, over the memory store, with nothing around it. Ten callers in a hundred hold nine
tenths of the places; there are three classes, and every call belongs to a run. Each figure is the median of
many single decisions, so that a sweep or a pause of the collector does not hide in a mean; and the least of
several such medians, the numbers of waiting in turn: what else the machine does only ever adds to it.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
from collections.abc import Iterable, Sequence
from time import perf_counter_ns
from typing import Final

from proxy.core import gate as gate_module
from proxy.core.call import Call
from proxy.core.gate import Gate, Grant
from proxy.core.policy import BucketPolicy, CapPolicy, Per, Policy, QueuePolicy, RoutePolicy, UpstreamPolicy
from proxy.core.verdict import Outcome, Refusal
from proxy.core.waiting import Waiter
from proxy.stores.breakers import BreakerMachine
from proxy.stores.memory import MemoryStore

WAITING: Final = (10, 100, 1_000, 10_000)
MOST_US: Final = 15.0
"""The budget of one decision at 10,000 waiting (issue 4)."""

NAMES: Final = ("settle", "queue", "displace", "refuse", "too early")

Verdict = Grant | Refusal | Waiter


class Crowd:
    """A gate with four permits, all taken, and so many waiting behind them."""

    def __init__(self, waiting: int) -> None:
        bucket = BucketPolicy("chat/caller", Per.CALLER, 1e6, 1e6, "1000000 requests/s")
        route = RoutePolicy("chat", QueuePolicy(waiting, 1e6), (2.0, 2.0, 2.0), buckets=(bucket,))
        upstream = UpstreamPolicy("api", CapPolicy("upstream:api", 4), None, None)
        policy = Policy(("critical", "normal", "background"), {"chat": route}, {"api": upstream})
        self.now = 1000.0
        self.gate = Gate(policy, MemoryStore(), BreakerMachine, _ignore)
        self.held: list[Grant] = []
        self._number = 0
        while self.gate.room.size < waiting:
            self.take(self.offer(self.call()))

    def call(self, rank: int | None = None) -> Call:
        """One more, of the next caller."""
        self._number += 1
        number = self._number
        loud = number % 10
        caller = f"loud{number % 100 // 10}" if loud else f"quiet{number % 9000}"
        return Call(
            route="chat",
            caller=caller,
            run=f"run{number % 5000}",
            rank=number % 3 if rank is None else rank,
            arrived_at=self.now,
            size=2000,
        )

    def offer(self, call: Call, *, may_wait: bool = True) -> Verdict:
        """As the proxy offers it."""
        return self.gate.offer(call, "api", self.now, may_wait=may_wait)

    def take(self, verdict: Verdict | None) -> None:
        """Keep what was granted, and take what was decided besides."""
        if isinstance(verdict, Grant):
            self.held.append(verdict)
        self.held += [each.verdict for each in self.gate.take_decided() if isinstance(each.verdict, Grant)]


class Watch:
    """How long each kind of decision took."""

    def __init__(self) -> None:
        self.spent_ns: dict[str, list[int]] = {name: [] for name in NAMES}

    def offer(self, name: str, crowd: Crowd, call: Call, *, may_wait: bool = True) -> Verdict:
        """One offer, timed."""
        begun = perf_counter_ns()
        verdict = crowd.offer(call, may_wait=may_wait)
        self.spent_ns[name].append(perf_counter_ns() - begun)
        crowd.take(verdict)
        return verdict

    def settle(self, crowd: Crowd) -> None:
        """The end of the longest running, and the beginning of the next; timed."""
        grant = crowd.held.pop(0)
        begun = perf_counter_ns()
        crowd.gate.settle(grant, Outcome.SUCCEEDED, crowd.now)
        self.spent_ns["settle"].append(perf_counter_ns() - begun)
        crowd.take(None)


def measured(waiting: int, rounds: int) -> dict[str, float]:
    """Microseconds of each decision, with so many waiting."""
    crowd, watch = Crowd(waiting), Watch()
    for _ in range(rounds):
        crowd.now += 0.01
        watch.settle(crowd)
        watch.offer("queue", crowd, crowd.call(rank=2))
        watch.offer("displace", crowd, crowd.call(rank=0))
        refused = crowd.call(rank=2)
        verdict = watch.offer("refuse", crowd, refused, may_wait=False)
        if isinstance(verdict, Refusal) and verdict.ticket is not None:
            refused.ticket = verdict.ticket
            watch.offer("too early", crowd, refused)
    return {name: statistics.median(each) / 1000 if each else 0.0 for name, each in watch.spent_ns.items()}


def least(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each kind of decision the figure of the run that was hindered least."""
    return {name: min(run[name] for run in runs) for name in NAMES}


def table(rows: Iterable[tuple[int, dict[str, float]]]) -> str:
    """The figures, and how much they grew from the first row to the last."""
    rows = list(rows)
    lines = [f"{'waiting':>8}" + "".join(f"{name:>16}" for name in NAMES)]
    for waiting, figures in rows:
        lines.append(f"{waiting:>8,}" + "".join(f"{figures[name]:>13.1f} us" for name in NAMES))
    first, last = rows[0][1], rows[-1][1]
    growth = [f"{last[name] / first[name]:>15.2f}x" if first[name] else f"{'-':>16}" for name in NAMES]
    lines.append(f"{'growth':>8}" + "".join(growth))
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Print the table; 1 if a decision costs more than its budget and the core is compiled."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2000, help="decisions of each kind (default: 2000)")
    parser.add_argument("--times", type=int, default=5, help="runs, of which the least counts (default: 5)")
    asked = parser.parse_args(arguments)
    compiled = not str(gate_module.__file__).endswith(".py")
    kind = "compiled" if compiled else "interpreted"
    print(f"Decisions of the {kind} gate, least of {asked.times} medians of {asked.rounds}")
    gc.collect()
    gc.freeze()
    runs = [[measured(waiting, asked.rounds) for waiting in WAITING] for _ in range(asked.times)]
    rows = [(waiting, least(each)) for waiting, each in zip(WAITING, zip(*runs, strict=True), strict=True)]
    print(table(rows))
    worst = max(rows[-1][1].values())
    print(f"The dearest at {WAITING[-1]:,} waiting: {worst:.1f} us (budget {MOST_US:g} us, compiled)")
    return 1 if compiled and worst > MOST_US else 0


def _ignore(_: object) -> None:
    """Nobody counts here."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
