"""A bucket that all replicas share: is more than its rate ever let through, and how much of it is used?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from loadtests.figures import percentile
from loadtests.replicas.exactness import moved_by, rate_between, worst_of_length, worst_window
from loadtests.replicas.plans import load, yaml
from loadtests.replicas.site import Action, Run, Site, Stream, site
from loadtests.replicas.table import Rows
from proxy.core.ledger import LEASE_S

FACTOR: Final = 1.5
FLASH: Final = 4.0
JOINS_S: Final = 3.0
"""A process that starts, on a busy machine."""
SETTLED_S: Final = 3.0
"""After a start or a change: the burst is spent, and all have learnt what is asked of them."""
LEAST_STEADY_S: Final = 5.0
LATEST_S: Final = 0.1
"""A generator that is later for 1 % of its calls offered another load than it was to."""
ROUNDING: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Plan:
    """So many replicas share `rate_per_s`, and are asked for FACTOR times as much, unevenly.

    For the first second it is FLASH times as much: the burst goes as fast as it may. With `churn` one is
    killed after a third of the time, and another joins after half. `used` is the part of the rate that is to
    be in use while nothing changes.
    """

    replicas: int
    rate_per_s: float
    seconds: float
    used: float
    skew: float = 8.0
    churn: bool = False


def measure(plan: Plan, folder: Path) -> Rows:
    """Play it, and judge."""
    rules = yaml(rate_per_s=plan.rate_per_s, burst=plan.rate_per_s)
    with site(folder, rules, replicas=plan.replicas, witnessed=True) as here:
        streams, actions, steady = _script(plan, here)
        run = here.play(streams, actions)
        arrived_of = [
            sorted(call[1] for call in run.calls if call[0].startswith(f"{one.number}."))
            for one in here.replicas
        ]
        granted_of = [[at for at in one.instants() if at >= run.begin_at] for one in here.replicas]
    return judge(folder.name, plan, run, steady, granted_of, arrived_of)


def _script(plan: Plan, here: Site) -> tuple[list[Stream], list[Action], list[tuple[float, float]]]:
    """Who is called when, what happens, and the times in which nothing changes."""
    everybody, offered, over_s = list(here.replicas), FACTOR * plan.rate_per_s, plan.seconds
    flash = load(everybody, (FLASH - FACTOR) * plan.rate_per_s, 1.0, 0.0, 1.0)
    if not plan.churn:
        return [*flash, *load(everybody, offered, plan.skew, 0.0, over_s)], [], [(SETTLED_S, over_s)]
    kill_s, join_s = over_s / 3, over_s / 2
    came_s, victim, left, fresh = join_s + JOINS_S, everybody[0], everybody[1:], here.add()
    streams = flash + load(everybody, offered, plan.skew, 0.0, kill_s)
    streams += load(left, offered, plan.skew, kill_s, came_s)
    streams += load([fresh, *left], offered, plan.skew, came_s, over_s)
    actions = [(kill_s, victim.kill), (join_s, partial(here.start, fresh))]
    return streams, actions, [(SETTLED_S, kill_s), (came_s + LEASE_S + SETTLED_S, over_s)]


def judge(
    name: str,
    plan: Plan,
    run: Run,
    steady: list[tuple[float, float]],
    granted_of: list[list[float]],
    arrived_of: list[list[float]],
) -> Rows:
    """By the replicas' own instants exactly; by the upstream's with what lies between the two."""
    rate = burst = plan.rate_per_s
    rows = Rows(name, [], why_void(run, rate * (FACTOR * plan.seconds + FLASH - FACTOR)))
    granted, arrived = run.instants, run.arrived
    ways = [way for here, there in zip(granted_of, arrived_of, strict=True) for way in moved_by(here, there)]
    jitter_s = max(ways, default=0.0) - min(ways, default=0.0)
    worst = f"worst window: {worst_window(granted, rate, burst):.2f}"
    rows.at_most("granted beyond any window", beyond(granted, rate, burst), 0.0, " calls", worst)
    for length_s in (1.0, 60.0):
        if length_s <= plan.seconds or length_s == 1.0:
            over = max(0.0, worst_of_length(granted, rate, burst, length_s))
            rows.at_most(f"granted beyond any {length_s:g} s", over, 0.0, " calls")
    rows.note("arrived beyond any window, as seen", beyond(arrived, rate, burst), " calls")
    rows.at_most(
        "arrived beyond any window, less jitter",
        beyond(arrived, rate, burst, jitter_s),
        0.0,
        " calls",
        f"grant to arrival p50 {percentile(ways, 0.5) * 1000:.2f}, p99 {percentile(ways, 0.99) * 1000:.2f}, "
        f"most {max(ways, default=0.0) * 1000:.1f} ms",
    )
    seconds = sum(to_s - from_s for from_s, to_s in steady)
    calls = sum(
        rate_between(granted, run.begin_at + from_s, run.begin_at + to_s) * (to_s - from_s)
        for from_s, to_s in steady
    )
    part = calls / seconds / rate if seconds > 0 else float("nan")
    short = "" if seconds >= LEAST_STEADY_S else "too short to be judged"
    Rows(name, rows.rows, rows.void or short).at_least(
        "of the rate in use", part, plan.used, "", f"{seconds:.1f} steady s"
    )
    rows.note("offered to the rate", len(run.records) / plan.seconds / rate)
    rows.note("longest wait for an answer", run.longest_s(), " s")
    return rows


def beyond(instants: list[float], rate: float, burst: float, slack_s: float = 0.0) -> float:
    """The worst window's excess, 0.0 if there is none."""
    found = worst_window(instants, rate, burst, slack_s)
    return found if found > ROUNDING else 0.0


def why_void(run: Run, planned: float) -> str:
    """Why the run proves nothing, or "" if it stands."""
    offered = sum(not record[2] for record in run.records)
    if abs(offered - planned) > 5 * planned**0.5 + 0.01 * planned:
        return f"{offered} calls were offered, not {planned:.0f}"
    late_s = run.late_p99_s()
    return f"the generator was late: p99 {late_s * 1000:.0f} ms" if late_s > LATEST_S else ""
