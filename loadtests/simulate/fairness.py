"""Who got how much: Jain's index over what each tenant is entitled to, and a returning tenant's share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from loadtests.simulate.calls import Attempt
from loadtests.simulate.playing import Played

SPAN_S: Final = 10.0


def jain(ratios: Sequence[float]) -> float:
    """1 when all are equal, 1/n when one has all."""
    squares = sum(ratio * ratio for ratio in ratios)
    return sum(ratios) ** 2 / (len(ratios) * squares) if squares else 1.0


def max_min(demands: Sequence[float], capacity: float) -> list[float]:
    """What each is entitled to: nobody more than he asks for, and nobody less than another of his needs."""
    share = [0.0] * len(demands)
    left, open_ = capacity, [index for index, demand in enumerate(demands) if demand > 0]
    while open_ and left > 1e-12:
        equal = left / len(open_)
        content = [index for index in open_ if demands[index] - share[index] <= equal]
        for index in content or open_:
            given = min(demands[index] - share[index], equal)
            share[index] += given
            left -= given
        if not content:
            break
        open_ = [index for index in open_ if index not in content]
    return share


def fairness(played: Played, useful: list[Attempt]) -> dict[str, float]:
    """Over spans of 10 s of the window: the mean index, and the worst that a tenant got of his share."""
    begun, ended = played.scenario.window
    spans = int((ended - begun) / SPAN_S)
    tenants = len(played.scenario.weights)
    if played.scenario.upstream == "u3" or not spans:
        return {}
    demands = [[0.0] * tenants for _ in range(spans)]
    served = [[0.0] * tenants for _ in range(spans)]
    for call in played.ledger.calls:
        span = int((call.at - begun) // SPAN_S)
        if 0 <= span < spans:
            demands[span][call.tenant] += call.work_s
    for attempt in useful:
        span = int((attempt.ended_at - begun) // SPAN_S)
        if 0 <= span < spans:
            served[span][attempt.call.tenant] += attempt.call.work_s
    indices, worst = [], 1.0
    for demand, got in zip(demands, served, strict=True):
        entitled = max_min(demand, sum(got))
        ratios = [mine / his for mine, his in zip(got, entitled, strict=True) if his > 0]
        indices.append(jain(ratios))
        worst = min(worst, *ratios) if ratios else worst
    first_span = served[0]
    return {
        "jain": sum(indices) / len(indices),
        "worst_share": worst,
        "first_tenants_part": first_span[0] / sum(first_span) if sum(first_span) else float("nan"),
    }
