"""The JSON Schema (2020-12) of the YAML as written: for editors, and for the advice in errors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from proxy.settings.problems import Path
from proxy.settings.schema import Settings

FROM_ENVIRONMENT: Final = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"}
_CLOSED: Final = ("pattern", "enum", "const", "minimum", "exclusiveMinimum", "maximum")

Schema = dict[str, Any]


def json_schema() -> Schema:
    """The contract of `backpressure serve FILE`, with descriptions and defaults as an operator writes them.

    Wherever a value stands, `${NAME}` may stand too.
    """
    schema = _opened(_plain())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Backpressure configuration",
    }


def known_keys(path: Path) -> list[str]:
    """The keys that may stand in the mapping at `path`; empty where any may, or none."""
    return [key for each in _places(path) for key in each.get("properties", {})]


def homes_of(key: str) -> list[str]:
    """Where else `key` may stand, such as `upstreams.*.timeouts`."""
    return sorted({where for where, keys in _sections() if key in keys})


def example_of(path: Path) -> str:
    """What may be written at `path`, or "" when nothing short can be said."""
    *above, last = path
    for each in _places(tuple(above)):
        field = each.get("properties", {}).get(last, {})
        if field.get("examples"):
            return str(field["examples"][0])
    return ""


@cache
def _plain() -> Schema:
    schema: Schema = _tidy(Settings.model_json_schema(by_alias=True))
    return schema


def _resolved(schema: Schema) -> Iterator[Schema]:
    """The schema itself, behind references and choices."""
    if "$ref" in schema:
        yield from _resolved(_plain()["$defs"][schema["$ref"].rpartition("/")[2]])
    elif "anyOf" in schema:
        for choice in schema["anyOf"]:
            yield from _resolved(choice)
    else:
        yield schema


def _places(path: Path) -> list[Schema]:
    places = list(_resolved(_plain()))
    for step in path:
        places = [deeper for each in places for deeper in _resolved(_below(each, step))]
    return places


def _below(schema: Schema, step: str | int) -> Schema:
    if isinstance(step, int):
        found = schema.get("items", {})
    else:
        found = schema.get("properties", {}).get(step)
        if found is None:
            # pydantic writes the values of a mapping whose keys have a pattern under that pattern.
            patterns = schema.get("patternProperties", {})
            found = next(iter(patterns.values()), schema.get("additionalProperties"))
    return found if isinstance(found, dict) else {}


@cache
def _sections() -> tuple[tuple[str, frozenset[str]], ...]:
    """Each closed mapping of the contract, by the dotted path that leads to it."""

    def walk(schema: Schema, where: str) -> Iterator[tuple[str, frozenset[str]]]:
        for each in _resolved(schema):
            if "properties" in each:
                yield where, frozenset(each["properties"])
                for key, field in each["properties"].items():
                    yield from walk(field, f"{where}.{key}" if where else key)
            elif "items" in each:
                yield from walk(each["items"], f"{where}[]")
            elif inner := _below(each, ""):
                yield from walk(inner, f"{where}.*")

    return tuple(walk(_plain(), ""))


def _tidy(node: Any) -> Any:
    """Without generated titles, and without null: a key that has no value is left out."""
    if isinstance(node, list):
        return [_tidy(each) for each in node]
    if not isinstance(node, dict):
        return node
    if "anyOf" in node:
        choices = [each for each in node["anyOf"] if each != {"type": "null"}]
        if len(choices) == 1:
            node = {**{key: value for key, value in node.items() if key != "anyOf"}, **choices[0]}
        else:
            node = {**node, "anyOf": choices}
    kept = {key: value for key, value in node.items() if key == "properties" or not _is_noise(key, value)}
    if "properties" in kept:
        kept["properties"] = {key: _tidy(value) for key, value in kept["properties"].items()}
    return {key: value if key == "properties" else _tidy(value) for key, value in kept.items()}


def _is_noise(key: str, value: object) -> bool:
    return (key == "title" and isinstance(value, str)) or (key == "default" and value in (None, ""))


def _opened(node: Any) -> Any:
    """The same contract, where every closed value may also come from the environment."""
    if isinstance(node, list):
        return [_opened(each) for each in node]
    if not isinstance(node, dict):
        return node
    if "properties" not in node and (
        any(key in node for key in _CLOSED) or node.get("type") in {"boolean", "integer", "number"}
    ):
        notes = {key: node[key] for key in ("description", "default", "examples") if key in node}
        rule = {key: value for key, value in node.items() if key not in notes}
        return {**notes, "anyOf": [rule, FROM_ENVIRONMENT]}
    return {
        key: {name: _opened(field) for name, field in value.items()}
        if key in {"properties", "$defs"}
        else value
        if key in {"propertyNames", "examples", "default"}
        else _opened(value)
        for key, value in node.items()
    }
