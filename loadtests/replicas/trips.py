"""What the sharing costs Redis: commands for each call, granted or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from loadtests.replicas.bucket import SETTLED_S, why_void
from loadtests.replicas.plans import load, yaml
from loadtests.replicas.site import Run, site
from loadtests.replicas.table import Rows

MOST_PER_CALL: Final = 0.02
MOST_MORE: Final = 1.1
"""Trips a second while nearly everything is refused, to those while nothing is."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Each replica gets `each_per_s`, first far below the limit, then at `flood` times the limit."""

    replicas: int
    each_per_s: float
    flood: float
    seconds: float


def measure(plan: Plan, folder: Path) -> Rows:
    """Two loads of the same calls, with a limit that lets all of them through and with one that does not."""
    per_s = plan.replicas * plan.each_per_s
    calm, trips = _trips(plan, folder.with_name("calm"), 10 * per_s)
    full, full_trips = _trips(plan, folder.with_name("full"), per_s / plan.flood)
    void = why_void(calm, per_s * plan.seconds) or why_void(full, per_s * plan.seconds)
    rows = Rows(folder.name, [], void)
    seconds = plan.seconds - SETTLED_S
    calls = _since(calm, SETTLED_S)
    rows.at_most("commands a call, nothing refused", trips / calls, MOST_PER_CALL, "", f"{trips} to {calls}")
    asked = _since(full, SETTLED_S)
    refused = sum(record[6] != 200 and record[3] >= full.begin_at + SETTLED_S for record in full.records)
    rows.at_most(
        f"commands a call, {plan.flood:g}x the limit offered",
        full_trips / asked,
        MOST_PER_CALL,
        "",
        f"{full_trips} to {asked}, {refused} of them refused",
    )
    each, each_full = (count / seconds / plan.replicas for count in (trips, full_trips))
    rows.note("trips a second and replica, nothing refused", each)
    rows.at_most("the same while refusing, to it", each_full / each, MOST_MORE, "", f"{each_full:.3f}/s")
    rows.note("refused call costs", max(0.0, full_trips - trips) / max(1, refused), " commands")
    return rows


def _since(run: Run, from_s: float) -> int:
    return sum(record[3] >= run.begin_at + from_s for record in run.records)


def _trips(plan: Plan, folder: Path, rate: float) -> tuple[Run, int]:
    """The run, and the commands from when it had settled to its end."""
    seen: list[int] = []
    rules = yaml(rate_per_s=rate, burst=max(1.0, rate / 2))
    with site(folder, rules, replicas=plan.replicas) as here:
        streams = load(here.replicas, plan.replicas * plan.each_per_s, 1.0, 0.0, plan.seconds)
        look = partial(_look, seen, here.redis.trips)
        run = here.play(streams, [(SETTLED_S, look), (plan.seconds, look)])
    return run, seen[1] - seen[0]


def _look(seen: list[int], count: Callable[[], int]) -> None:
    seen.append(count())
