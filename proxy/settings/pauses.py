"""`pause_when:` which calls wait while an upstream is slow to answer."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from proxy.settings.environment import WrongValueError
from proxy.settings.section import Section
from proxy.settings.units import Duration
from proxy.settings.words import Text


def _lanes(value: object) -> object:
    if isinstance(value, list) and not value:
        raise WrongValueError("at least one is needed here; write such as [background]")
    return value


Lanes = Annotated[
    tuple[Text, ...],
    BeforeValidator(_lanes),
    WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 1}),
]


class PauseWhen(Section):
    """The priorities that can wait are held while the upstream begins its answers late.

    They stand in the queue of their route, as long as it lets them. It is stated for the upstream, not for a
    route: what is measured is the upstream's, and calls of each route make it slow for those of all others.
    """

    p95_above_s: Duration = Field(
        alias="p95_above",
        description="Late: more than one answer in twenty begins later than this.",
        examples=["20s"],
    )
    for_s: Duration = Field(
        default="30s",
        alias="for",
        validate_default=True,
        description=(
            "So long it must have been late, in each third of this time and with 20 answers at least. It "
            "ends after a third of this time below 80 % of the bound, or when fewer answers come. 30s as "
            "the breaker's window."
        ),
    )
    lanes: Lanes = Field(description="The priorities that are held.", examples=[["background"]])
