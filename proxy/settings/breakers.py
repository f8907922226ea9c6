"""`breaker:` and `retry_budget:` of an upstream, and of a tool that fails apart."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from proxy.settings.environment import WrongValueError
from proxy.settings.section import OFF, Section
from proxy.settings.units import Duration, RetryFloor
from proxy.settings.words import Ratio, SomeRatio, Switch, Whole


def _multiple(value: object) -> float:
    """A number from 1, or `off`: 0.0."""
    if value is False or value == "off":
        return 0.0
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", value):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= 100:
        return float(value)
    raise WrongValueError("calls for each accepted one, 1 to 100, are needed here; write such as 2, or off")


Multiple = Annotated[
    float,
    BeforeValidator(_multiple),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 1, "maximum": 100}, {"enum": list(OFF)}]}),
]


class BreakerSection(Section):
    """When the upstream counts as down, and how it is tried again."""

    failure_ratio: SomeRatio = Field(
        default=0.5, description="Trips when this share of the window's calls failed."
    )
    slow_call_s: Duration = Field(
        default="60s",
        alias="slow_call",
        validate_default=True,
        description=(
            "A call whose answer began this late, or not within this time, is slow; how long the answer then "
            "lasts, or its caller takes with it, does not matter. 60s as in resilience4j."
        ),
    )
    slow_ratio: SomeRatio = Field(
        default=0.8, description="Trips when this share of the window's calls was slow."
    )
    window_s: Duration = Field(
        default="30s", alias="window", validate_default=True, description="How far back calls are counted."
    )
    minimum_calls: Whole = Field(
        default=20, description="Fewer calls in the window than this decide nothing."
    )
    open_for_s: Duration = Field(
        default="15s",
        alias="open_for",
        validate_default=True,
        description=(
            "Who is refused is told to stay away for as long as the outage has lasted, and for this at most "
            "(Envoy's base_ejection_time is 30s). Probes do not wait for it."
        ),
    )
    probe_every_s: Duration = Field(
        default="250ms",
        alias="probe_every",
        validate_default=True,
        description=(
            "While it is open one call goes as a probe in about so long, the most important first: an outage "
            "is over for its callers within a second (HAProxy checks a server that is down every 2s, and "
            "fastinter is there to make it faster)."
        ),
    )
    probes: Whole = Field(
        default=3,
        description=(
            "So many probes may be unanswered at a time, and so many answers close it. It then lets as many "
            "calls go at once, and one more with each answer, up to the cap (HAProxy: slowstart)."
        ),
    )
    brownout: Multiple = Field(
        default=2.0,
        description=(
            "While it is closed, no more than so many calls go for each that the upstream accepts; the rest, "
            "up to 80 %, is refused at once, the least important first. 2 as in Google's SRE book, ch. 21; "
            "from 5 calls a second on, as in Envoy's admission control. Or off."
        ),
    )
    enforce: Switch = Field(
        default=True,
        description=(
            "false: dry run. It opens, probes and closes as if it were enforced, and is logged; calls go on, "
            "and those that it would have refused are counted, and teach it nothing."
        ),
    )


class RetryBudgetSection(Section):
    """How many of the calls may be retries, so that retries cannot multiply an overload."""

    ratio: Ratio = Field(default=0.1, description="Retries per first attempt.")
    floor: RetryFloor = Field(
        default="10 per minute",
        validate_default=True,
        description="Retries that are always paid for, besides.",
    )
