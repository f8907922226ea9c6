"""What every part of the configuration shares: closed, frozen, and some parts can be `off`."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from proxy.settings.environment import WrongValueError

OFF = (False, "off")
ON = (True, "on")
"""YAML reads a bare `off` as false; in quotes it stays a word."""


class Section(BaseModel):
    """A mapping of the YAML. Unknown keys are refused; attribute names carry the unit, keys do not."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class OffInSchema:
    """Shows `off`, or whatever `words`, in the JSON Schema in place of null."""

    def __init__(self, words: tuple[object, ...] = OFF) -> None:
        self._words = words

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The section's own schema, or a word."""
        inner: dict[str, Any] = handler(schema)
        choices = [each for each in inner["anyOf"] if each != {"type": "null"}]
        return {"anyOf": [*choices, {"enum": list(self._words)}]}


def _unless_off(value: object) -> object:
    if value is False or value == "off":
        return None
    if value is True:
        raise WrongValueError("`on` is the default; remove the key, or write its settings below it")
    return value


def _if_on(value: object) -> object:
    if value is False or value == "off":
        return None
    return {} if value is True or value == "on" else value


S = TypeVar("S", bound=Section)
OrOff = Annotated[S | None, BeforeValidator(_unless_off), OffInSchema()]
OptIn = Annotated[S | None, BeforeValidator(_if_on), OffInSchema((*OFF, *ON))]
"""Off unless its settings are written below it; `on` stands for their defaults."""
