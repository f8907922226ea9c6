"""Callers that come back at the time told, and to another replica than the one that told them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loadtests.replicas.bucket import SETTLED_S, why_void
from loadtests.replicas.plans import load, yaml
from loadtests.replicas.site import Run, site
from loadtests.replicas.table import Rows

CHARGED: Final = "retry_budget_spent"
MOST_CHARGED: Final = 0.01
LEAST_ADMITTED: Final = 0.90


@dataclass(frozen=True, slots=True)
class Plan:
    """Replicas share `rate_per_s`, and are asked for `factor` times as much. `roams`: to the next one."""

    replicas: int
    rate_per_s: float
    factor: float
    seconds: float
    roams: bool


def measure(plan: Plan, folder: Path) -> Rows:
    """Play it, and judge what became of those who returned."""
    rules = yaml(rate_per_s=plan.rate_per_s, burst=plan.rate_per_s)
    offered = plan.factor * plan.rate_per_s
    with site(folder, rules, replicas=plan.replicas) as here:
        run = here.play(load(here.replicas, offered, 1.0, 0.0, plan.seconds), roams=plan.roams)
    return judge(folder.name, run, offered * plan.seconds)


def judge(name: str, run: Run, planned: float) -> Rows:
    """Of each call the first return: a second one was refused twice, and says nothing new."""
    rows = Rows(name, [], why_void(run, planned))
    returns = [record for record in run.records if record[2] == 1 and _has_settled(run, record)]
    admitted = sum(record[6] == 200 for record in returns)
    charged = sum(record[7] == CHARGED for record in returns)
    told = f"{len(returns)} returned"
    rows.at_least("admitted on the first return", admitted / max(1, len(returns)), LEAST_ADMITTED, "", told)
    rows.at_most("returns charged as retries", charged / max(1, len(returns)), MOST_CHARGED, "", told)
    return rows


def _has_settled(run: Run, record: list[Any]) -> bool:
    return bool(record[4] >= run.begin_at + SETTLED_S)
