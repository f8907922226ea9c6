"""`advise:` what the callers refused on a route may be told to do instead."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

from proxy.settings.environment import WrongValueError
from proxy.settings.section import Section
from proxy.settings.words import Text

MOST_ROUTES: Final = 4
"""Each is looked at for every refusal, until one has room."""


def model(value: object) -> str:
    """A model's name."""
    if isinstance(value, str) and value.strip() and value.isprintable():
        return str(value)
    raise WrongValueError("a model's name is needed here; write such as gpt-4o-mini")


Model = Annotated[str, BeforeValidator(model), WithJsonSchema({"type": "string", "minLength": 1})]


class Advise(Section):
    """Other ways, named to who is refused. Nothing is sent there: the caller decides."""

    routes: tuple[Text, ...] = Field(
        default=(),
        description=(
            "Up to 4 routes of the same dialect that serve the same models or tools. Who is refused is told "
            "the path of the first that has room for its call at that moment. None unless stated: what "
            "another route serves, and for whom it is meant, only its operator knows."
        ),
        examples=[["azure"]],
    )
    model: Model | None = Field(
        default=None,
        description="A cheaper model of this route's upstream, named to who is refused for want of room.",
        examples=["gpt-4o-mini"],
    )
