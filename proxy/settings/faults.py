"""pydantic's errors → problems in our words, with the line and what to write."""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxy.settings.document import Document
from proxy.settings.json_schema import example_of, homes_of, known_keys
from proxy.settings.nearest import nearest
from proxy.settings.problems import Path, dotted

_NEEDED: Final = {
    "model_type": "a mapping is needed here; write keys below it, such as `key: value`",
    "model_attributes_type": "a mapping is needed here; write keys below it, such as `key: value`",
    "dict_type": "a mapping is needed here; write keys below it, such as `key: value`",
    "tuple_type": "a list is needed here; begin each item with `- `",
    "list_type": "a list is needed here; begin each item with `- `",
}


def note_faults(document: Document, error: ValidationError) -> None:
    """Add each of pydantic's errors to the document's problems, unless the value is reported already."""
    for detail in error.errors(include_url=False, include_input=False):
        path = _path_of(detail)
        known = detail["type"] != "extra_forbidden"
        if known and any(path[:end] in document.unset for end in range(len(path) + 1)):
            continue
        document.fault(path, _words(detail, path))


def _path_of(detail: ErrorDetails) -> Path:
    return tuple(step for step in detail["loc"] if step != "[key]")


def _words(detail: ErrorDetails, path: Path) -> str:
    kind = detail["type"]
    if kind == "extra_forbidden":
        return _unknown(path)
    if kind == "missing":
        example = example_of(path)
        return f"is missing; write such as `{path[-1]}: {example}`" if example else "is missing; write it"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    return _NEEDED.get(kind, detail["msg"])


def _unknown(path: Path) -> str:
    key = str(path[-1])
    known = known_keys(path[:-1])
    if guess := nearest(key, known):
        return f'unknown key; did you mean "{guess}"?'
    homes = [home for home in homes_of(key) if home != dotted(path[:-1])]
    if homes:
        return f"unknown key here; it belongs under {' or '.join(home or 'the top' for home in homes[:3])}"
    return f"unknown key; known here: {', '.join(known)}"
