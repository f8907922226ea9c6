"""`run_budget:` what one run (an agent's task, by `x-run-id`) may have in all."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from proxy.core.policy import Per, QuotaPolicy, RunBudgetPolicy, Unit
from proxy.settings.environment import WrongValueError
from proxy.settings.money import MoneyAmount
from proxy.settings.section import OffInSchema, Section
from proxy.settings.units import Burst, Duration
from proxy.settings.words import Switch, Whole, WholeOrZero, whole

MOST_DEPTH = 64
STATED = ("calls", "tokens", "money", "wall_time", "in_flight", "depth", "agents", "retries")

Depth = Annotated[
    int,
    BeforeValidator(whole(0, MOST_DEPTH, 3)),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MOST_DEPTH}),
]


class RunBudget(Section):
    """What each run of a caller may have; what is not stated it may have without end."""

    calls: Burst | None = Field(
        default=None, description="Calls that are sent upstream, over all routes.", examples=[500]
    )
    tokens: Burst | None = Field(
        default=None,
        description="Tokens, of input and output: reserved by estimate, then corrected by the answer.",
        examples=["2M"],
    )
    money: MoneyAmount | None = Field(
        default=None, description="The same by prices, which are needed for it.", examples=["5 USD"]
    )
    wall_time_s: Duration | None = Field(
        default=None,
        alias="wall_time",
        description="From its first call on. A call in flight then is not cut.",
        examples=["2h"],
    )
    in_flight: Whole | None = Field(
        default=None,
        description="Calls at once; more wait in the queue of their route, as under any concurrency.",
        examples=[8],
    )
    depth: Depth | None = Field(
        default=None,
        description=(
            "How far a sub-agent may be from the agent that the run began with, whose own is 0: 1 allows "
            "sub-agents, and these to start none. By the ids of agents that its calls carry."
        ),
        examples=[3],
    )
    agents: WholeOrZero | None = Field(default=None, description="Sub-agents in all.", examples=[20])
    retries: WholeOrZero | None = Field(
        default=None,
        description="Calls that repeat a failed one, the SDKs' own among them.",
        examples=[50],
    )
    forget_after_s: Duration = Field(
        default="24h",
        alias="forget_after",
        validate_default=True,
        description=(
            "A run of which no call was granted for so long begins anew, and so does each budget of which "
            "nothing was spent. 24h: a session that is taken up the next morning is the same run."
        ),
    )
    enforce: Switch = Field(
        default=True,
        description="false: dry run. Nobody is refused; who would be is counted and logged.",
    )


def _unless_off(value: object) -> object:
    if value is False or value == "off":
        return None
    if value is True or value == "on":
        raise WrongValueError("says nothing of how much; write a budget below it, such as calls: 500")
    return value


RunBudgetOrOff = Annotated[RunBudget | None, BeforeValidator(_unless_off), OffInSchema()]


def run_budget_policy(budget: RunBudget) -> RunBudgetPolicy:
    """As the core knows it. The keys are of no route: a run spends them wherever it calls."""
    window_s = max(1, round(budget.forget_after_s))

    def quota(name: str, amount: int, unit: Unit, label: str) -> QuotaPolicy:
        key = f"run_budget/{name}"
        return QuotaPolicy(key, Per.RUN, amount, window_s, label, budget.enforce, unit, lasts=True)

    quotas = []
    if budget.calls is not None:
        quotas.append(quota("calls", budget.calls, Unit.REQUESTS, f"{budget.calls} calls"))
    if budget.tokens is not None:
        quotas.append(quota("tokens", budget.tokens, Unit.TOKENS, f"{budget.tokens} tokens"))
    if budget.money is not None:
        quotas.append(quota("money", budget.money.micro, Unit.MONEY, budget.money.label))
    retries = None
    if budget.retries is not None:
        retries = quota("retries", budget.retries, Unit.REQUESTS, f"{budget.retries} retries")
    return RunBudgetPolicy(
        forget_s=float(window_s),
        quotas=tuple(quotas),
        retries=retries,
        slots=budget.in_flight,
        wall_s=float("inf") if budget.wall_time_s is None else budget.wall_time_s,
        depth=budget.depth,
        agents=budget.agents,
        enforce=budget.enforce,
    )
