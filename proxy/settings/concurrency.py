"""`concurrency:` a number, or `{slots: N, enforce: false}`; of an upstream also `adaptive`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from proxy.settings.environment import WrongValueError
from proxy.settings.section import Section
from proxy.settings.words import MOST, Switch, Whole, whole

EXAMPLE = 8
START = 16
UPSTREAM_EXAMPLE = 64


class Slots(Section):
    """A cap as a mapping: the number, and whether it is enforced."""

    slots: Whole = Field(description="Calls in flight at once.", examples=[EXAMPLE])
    enforce: Switch = Field(
        default=True,
        description=(
            "false: dry run. Nobody is kept out, and who would have been is counted and logged, as in nginx "
            "with limit_conn_dry_run."
        ),
    )


class Adaptive(Section):
    """How far a cap that is learnt may go."""

    min: Whole = Field(
        default=4,
        description=(
            "Never fewer calls at once. Low: a small upstream must not be held above its best, and what is "
            "tried is never far from what is known (Netflix Gradient2 20, Envoy min_concurrency 3)."
        ),
        examples=[4],
    )
    start: Whole = Field(
        default=START,
        description="Until something is learnt (Netflix Gradient2 20). Kept between min and max.",
        examples=[START],
    )
    max: Whole = Field(
        default=256,
        description=(
            "Never more; nor more than connections.max, where max is not stated (Netflix Gradient2 200, "
            "Envoy max_concurrency_limit 1000)."
        ),
        examples=[256],
    )


class UpstreamSlots(Slots):
    """The same for an upstream, whose cap may be learnt."""

    model_config = ConfigDict(
        json_schema_extra=lambda schema: schema.update(required=[])
    )  # slots or adaptive

    adaptive: Adaptive | None = Field(
        default=None,
        description="Learnt between these bounds, in place of slots.",
        examples=[{"min": 4, "start": START, "max": 256}],
    )


class OrNumber:
    """Shows the number, and words that stand for one, in the JSON Schema beside the mapping."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """A whole number, or the section."""
        words = [{"enum": list(self._words)}] if self._words else []
        return {"anyOf": [*words, {"type": "integer", "minimum": 1, "maximum": MOST}, handler(schema)]}


def slots(value: object, example: int = EXAMPLE) -> object:
    """The mapping, also where a number stands for it."""
    return value if isinstance(value, dict | Slots) else {"slots": whole(1, MOST, example)(value)}


def upstream_slots(value: object) -> object:
    """The mapping, also where a number or `adaptive` stands for it."""
    if value == "adaptive":
        return {"adaptive": {}, "slots": START}
    if not isinstance(value, dict) or "adaptive" not in value:
        return slots(value, UPSTREAM_EXAMPLE)
    if "slots" in value:
        raise WrongValueError("is either learnt or stated; remove slots, or adaptive")
    if "enforce" in value:  # where nobody is kept out no other number of calls is ever seen
        raise WrongValueError(
            "what is learnt has no dry run; write slots in place of adaptive, or remove enforce"
        )
    return {"adaptive": value["adaptive"] or {}, "slots": START} | {
        key: each for key, each in value.items() if key != "adaptive"
    }


Concurrency = Annotated[Slots, BeforeValidator(slots), OrNumber()]
UpstreamConcurrency = Annotated[UpstreamSlots, BeforeValidator(upstream_slots), OrNumber("adaptive")]
