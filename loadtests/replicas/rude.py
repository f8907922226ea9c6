"""Rude callers over several replicas while the upstream is down: how many more calls does it get?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from loadtests.replicas.bucket import why_void
from loadtests.replicas.exactness import rate_between
from loadtests.replicas.plans import load, yaml
from loadtests.replicas.site import Run, site
from loadtests.replicas.table import Rows
from proxy.core.retry_budget import WINDOW_S
from proxy.settings.breakers import RetryBudgetSection

MOST: Final = 1.02
NOBODY_RETURNS: Final = -1
NO_BREAKER: Final = "    breaker: off"
AMPLIFIED: Final = "attempts at the upstream, to the same without retries"


@dataclass(frozen=True, slots=True)
class Plan:
    """`per_s` calls in all; the upstream answers 503 to all for `down_s`; each comes `retries` times again.

    `budget_alone`: no breaker opens, and nothing but the retry budget keeps them away.
    """

    replicas: int
    per_s: float
    retries: int
    down_s: float
    budget_alone: bool = False
    around_s: float = 5.0

    @property
    def seconds(self) -> float:
        return self.down_s + 2 * self.around_s


def measure(plan: Plan, folder: Path) -> Rows:
    """The same calls twice: nobody returns, and everybody does at once."""
    calm = _play(plan, folder.with_name(f"{folder.name}-calm"), NOBODY_RETURNS)
    rude = _play(plan, folder.with_name(f"{folder.name}-rude"), plan.retries)
    planned = plan.per_s * plan.seconds
    rows = Rows(folder.name, [], why_void(calm, planned) or why_void(rude, planned))
    without, got = _while_down(plan, calm), _while_down(plan, rude)
    attempts = sum(_is_down(plan, rude, record[4]) for record in rude.records)
    firsts = sum(_is_down(plan, rude, record[4]) and not record[2] for record in rude.records)
    calls = [call for call in rude.calls if _is_down(plan, rude, call[1])]
    distinct = {call[0].rpartition(".")[0] for call in calls}
    said = f"{got:.0f} to {without:.0f} of {firsts} calls"
    if plan.budget_alone:
        again, paid = len(calls) - len(distinct), _paid_for(plan)
        told = f"{again} to {paid:.0f}: a tenth of the calls so far, and the floor"
        rows.at_most("retries at the upstream, to those that are paid for", again / paid, 1.0, "", told)
        rows.note(AMPLIFIED, got / max(1.0, without), "", said)
    else:
        rows.at_most(AMPLIFIED, got / max(1.0, without), MOST, "", said)
    rows.note("attempts at the upstream, to calls that came there", len(calls) / max(1, len(distinct)))
    rows.note("attempts at the proxies, to calls", attempts / max(1, firsts))
    return rows


def _play(plan: Plan, folder: Path, retries: int) -> Run:
    with site(folder, yaml(upstream=NO_BREAKER if plan.budget_alone else ""), replicas=plan.replicas) as here:
        streams = load(here.replicas, plan.per_s, 1.0, 0.0, plan.seconds)
        down, up = partial(here.answer, 503), partial(here.answer, 200)
        return here.play(streams, [(plan.around_s, down), (plan.around_s + plan.down_s, up)], retries=retries)


def _paid_for(plan: Plan) -> float:
    """The retries that the default budget pays for until the upstream is well again."""
    budget = RetryBudgetSection()
    return budget.ratio * plan.per_s * (plan.around_s + plan.down_s) + budget.floor.per_s * WINDOW_S


def _while_down(plan: Plan, run: Run) -> float:
    begun = run.begin_at + plan.around_s
    return rate_between(run.arrived, begun, begun + plan.down_s) * plan.down_s


def _is_down(plan: Plan, run: Run, at: float) -> bool:
    return plan.around_s <= at - run.begin_at < plan.around_s + plan.down_s
