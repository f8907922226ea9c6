"""What a preset changes about the keys of an upstream: its name, and what may then be left out."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from proxy.settings.presets import PRESETS
from proxy.settings.words import CredentialName, Secret, one_of


class OrEnv:
    """Shows the word `env` in the JSON Schema beside the mapping. `expansion.py` has replaced it by now."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The word, or headers."""
        return {"anyOf": [{"const": "env"}, handler(schema)]}


def unless_preset(schema: JsonSchemaValue) -> None:
    """Whatever an upstream must state may be left out beside a preset, which states it."""
    schema["if"], schema["else"] = {"required": ["preset"]}, {"required": schema.pop("required")}


PresetName = Annotated[str, BeforeValidator(one_of(*PRESETS)), WithJsonSchema({"enum": list(PRESETS)})]
Credentials = Annotated[dict[CredentialName, Secret], OrEnv()]
