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

MOST: Final = 1.02
NOBODY_RETURNS: Final = -1


@dataclass(frozen=True, slots=True)
class Plan:
    """`per_s` calls in all; the upstream answers 503 to all for `down_s`; each comes `retries` times again.

    `upstream` is what the configuration says of its breaker and retry budget; "" leaves the defaults.
    """

    replicas: int
    per_s: float
    retries: int
    down_s: float
    upstream: str = ""
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
    rows.at_most(
        "attempts at the upstream, to the same without retries",
        got / max(1.0, without),
        MOST,
        "",
        f"{got:.0f} to {without:.0f} of {firsts} calls",
    )
    rows.note("attempts at the upstream, to calls that came there", len(calls) / max(1, len(distinct)))
    rows.note("attempts at the proxies, to calls", attempts / max(1, firsts))
    return rows


def _play(plan: Plan, folder: Path, retries: int) -> Run:
    with site(folder, yaml(upstream=plan.upstream), replicas=plan.replicas) as here:
        streams = load(here.replicas, plan.per_s, 1.0, 0.0, plan.seconds)
        down, up = partial(here.answer, 503), partial(here.answer, 200)
        return here.play(streams, [(plan.around_s, down), (plan.around_s + plan.down_s, up)], retries=retries)


def _while_down(plan: Plan, run: Run) -> float:
    begun = run.begin_at + plan.around_s
    return rate_between(run.arrived, begun, begun + plan.down_s) * plan.down_s


def _is_down(plan: Plan, run: Run, at: float) -> bool:
    return plan.around_s <= at - run.begin_at < plan.around_s + plan.down_s
