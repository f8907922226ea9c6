"""A cap that all replicas share: are more ever in flight, and when are a killed one's permits back?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtests.replicas.bucket import FACTOR, SETTLED_S, why_void
from loadtests.replicas.exactness import below, in_flight, mean_in_flight
from loadtests.replicas.plans import load, yaml
from loadtests.replicas.site import Action, site
from loadtests.replicas.table import Rows
from proxy.core.ledger import LEASE_S

STRETCH_S: Final = 0.25
"""So long without being nearly full, and permits are missing; for less it is a permit on its way."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`slots` of `service_s` each, FACTOR times as many calls as fit. With `kill` one is killed midway."""

    replicas: int
    slots: int
    service_s: float
    seconds: float
    used: float
    skew: float = 1.0
    kill: bool = False


def measure(plan: Plan, folder: Path) -> Rows:
    """Play it, and judge by the upstream's ledger alone: it goes on with what a killed replica had begun."""
    with site(folder, yaml(cap=plan.slots), replicas=plan.replicas, service_s=plan.service_s) as here:
        per_s, over_s = FACTOR * plan.slots / plan.service_s, plan.seconds
        kill_s = over_s / 2 if plan.kill else over_s
        streams = load(here.replicas, per_s, plan.skew, 0.0, kill_s)
        actions: list[Action] = []
        if plan.kill:
            streams += load(here.replicas[1:], per_s, plan.skew, kill_s, over_s)
            actions = [(kill_s, here.replicas[0].kill)]
        run = here.play(streams, actions)
    rows = Rows(folder.name, [], why_void(run, per_s * over_s))
    curve = in_flight((call[1], call[2]) for call in run.calls)
    rows.at_most("most in flight at the upstream", max(running for _, running in curve), plan.slots)
    begun, killed = run.begin_at, run.begin_at + kill_s
    settled = [(begun + SETTLED_S, killed)]
    if plan.kill:
        back_at = killed + LEASE_S + 1.0
        settled.append((back_at, begun + over_s))
        found = [end for start, end in below(curve, plan.slots - 1, killed, begun + over_s)
                 if end - start >= STRETCH_S and start < back_at]  # fmt: skip
        rows.at_most(
            f"back at {plan.slots - 1} in flight after the kill",
            max(found, default=killed) - killed,
            LEASE_S + 1.0,
            " s",
            f"mean {mean_in_flight(curve, killed, killed + LEASE_S):.2f} in flight in the lease after it",
        )
        rows.note("mean in flight after that", mean_in_flight(curve, back_at, begun + over_s))
    seconds = sum(to_at - from_at for from_at, to_at in settled)
    mean = sum(mean_in_flight(curve, *each) * (each[1] - each[0]) for each in settled) / seconds
    rows.at_least(
        "of the cap in use", mean / plan.slots, plan.used, "", f"mean {mean:.2f}, {seconds:.0f} steady s"
    )
    rows.note("longest wait for an answer", run.longest_s(), " s")
    return rows
