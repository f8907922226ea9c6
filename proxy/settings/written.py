"""The document as written, before the schema has seen it: ways to look into it, and what it implies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from proxy.settings.schema import DEFAULT_CLASSES


def mapping(value: object) -> dict[str, object]:
    """The mapping itself, or an empty one: whoever needs more has the schema's error already."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[object]:
    """The list itself, or an empty one."""
    return value if isinstance(value, list) else []


def repeated(values: Sequence[object]) -> Iterator[tuple[int, int]]:
    """Each text that was there before: its place, and the first place of it."""
    first: dict[str, int] = {}
    for at, value in enumerate(values):
        if isinstance(value, str) and first.setdefault(str(value), at) != at:
            yield at, first[value]


def classes_of(written: Mapping[str, object]) -> list[str]:
    """The priority classes as stated, or the default ones; only those that are words."""
    stated = mapping(written.get("priority")).get("classes", list(DEFAULT_CLASSES))
    return [each for each in items(stated) if isinstance(each, str)]


def filled_in(written: Mapping[str, object]) -> dict[str, object]:
    """The document with `max_priority` stated everywhere: the first class, or that of `callers.default`."""
    callers = written.get("callers", {})
    classes = classes_of(written)
    if not isinstance(callers, dict) or not classes:
        return dict(written)
    default = callers.get("default", {})
    result = dict(callers)
    highest: object = classes[0]
    if isinstance(default, dict):
        highest = default.get("max_priority", classes[0])
        result["default"] = {**default, "max_priority": highest}
    known = callers.get("known")
    if isinstance(known, list):
        result["known"] = [
            {"max_priority": highest, **each} if isinstance(each, dict) else each for each in known
        ]
    return {**written, "callers": result}
