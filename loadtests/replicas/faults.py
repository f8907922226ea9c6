"""Redis stops, pauses, forgets or dies under load: is the limit kept, does a call hang, when is it back?"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from loadtests.replicas.bucket import FACTOR, why_void
from loadtests.replicas.callers import HUNG
from loadtests.replicas.exactness import back_after, rate_between, worst_share, worst_window
from loadtests.replicas.plans import load, yaml
from loadtests.replicas.site import Action, Redis, site
from loadtests.replicas.table import Rows
from proxy.core.ledger import LEASE_S
from proxy.stores.contact import LONGEST_S

AGE_S: Final = 1.0
A_BIT_S: Final = 0.5
"""An answer on its way, on a machine that does other things too."""
MOST_OVER: Final = 0.005
LEAST_BACK: Final = 0.9
OVER_S: Final = 1.0
"""The rate is back when it is so high over such a time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """After `before_s` of FACTOR times the limit Redis is away for `away_s`, and the load goes on after it.

    `fault` is one of FAULTS.
    """

    fault: str
    replicas: int
    rate_per_s: float
    away_s: float
    before_s: float = 7.0
    after_s: float = 10.0
    skew: float = 2.0

    @property
    def seconds(self) -> float:
        return self.before_s + self.away_s + self.after_s


def _stopped(store: Redis, plan: Plan) -> list[Action]:
    return [
        (plan.before_s, partial(store.signal, signal.SIGTERM)),
        (plan.before_s + plan.away_s, store.start),
    ]


def _paused(store: Redis, plan: Plan) -> list[Action]:
    return [
        (plan.before_s, partial(store.signal, signal.SIGSTOP)),
        (plan.before_s + plan.away_s, partial(store.signal, signal.SIGCONT)),
    ]


def _flushed(store: Redis, plan: Plan) -> list[Action]:
    return [(plan.before_s, partial(store.command, "FLUSHALL"))]


def _killed(store: Redis, plan: Plan) -> list[Action]:
    return [
        (plan.before_s, partial(store.signal, signal.SIGKILL)),
        (plan.before_s + plan.away_s, store.start),
    ]


FAULTS: Final[dict[str, tuple[Callable[[Redis, Plan], list[Action]], tuple[str, ...]]]] = {
    "stopped": (_stopped, ("--appendonly", "yes", "--appendfsync", "everysec")),  # it comes back knowing all
    "paused": (_paused, ()),
    "flushed": (_flushed, ()),
    "killed": (_killed, ()),  # it comes back empty
}


def measure(plan: Plan, folder: Path) -> Rows:
    """Play it. The return is the instant at which Redis can be asked again."""
    act, args = FAULTS[plan.fault]
    rate = plan.rate_per_s
    rules = yaml(rate_per_s=rate, burst=rate, queue=f"{{size: 40, max_age: {AGE_S:g}s}}")
    ends: list[float] = []
    with site(folder, rules, replicas=plan.replicas, witnessed=True, redis_args=args) as here:
        streams = load(here.replicas, FACTOR * rate, plan.skew, 0.0, plan.seconds)
        *first, (last_s, last) = act(here.redis, plan)
        run = here.play(streams, [*first, (last_s, partial(_noted, last, ends))])
        moves = sum(one.log.read_text().count('"new": "lost"') for one in here.replicas)
    rows = Rows(folder.name, [], why_void(run, FACTOR * rate * plan.seconds))
    instants, [returned_at] = run.instants, ends
    begun, ended = run.begin_at, run.begin_at + plan.seconds
    rows.at_most("calls without an answer", sum(record[6] in {HUNG, 0} for record in run.records), 0)
    longest_s = AGE_S + A_BIT_S
    beyond = run.waited_beyond(longest_s)
    rows.at_most(
        "longest wait for an answer", run.longest_s(), longest_s, " s", f"queue {AGE_S:g} s; {beyond}"
    )
    worst = worst_window(instants, rate, rate)
    rows.at_most(
        "granted beyond, worst window", worst_share(instants, rate, rate), MOST_OVER, "", f"{worst:.1f} calls"
    )
    back_s = back_after(instants, returned_at, LEAST_BACK * rate, ended, OVER_S)
    rows.at_most(f"back at {LEAST_BACK:.0%} after its return", back_s, LEASE_S + LONGEST_S, " s")
    away = (begun + plan.before_s, max(returned_at, begun + plan.before_s + LEASE_S))
    rows.note("of the rate before", rate_between(instants, begun + LEASE_S, begun + plan.before_s) / rate)
    rows.note("of the rate while away, or for a lease", rate_between(instants, *away) / rate)
    rows.note("of the rate at the end", rate_between(instants, ended - LEASE_S, ended) / rate)
    rows.note("replicas that lost it", moves, f" of {plan.replicas}")
    return rows


def _noted(act: Callable[[], None], ends: list[float]) -> None:
    act()
    ends.append(time.monotonic())
