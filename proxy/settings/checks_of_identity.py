"""What `runs` and `priority.hints` say against themselves and the priority classes."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.settings.environment import WrongValueError, shown
from proxy.settings.hints import values_of
from proxy.settings.nearest import advice
from proxy.settings.problems import Path
from proxy.settings.written import classes_of, items, mapping, repeated

Fault = tuple[Path, str]


def identity_faults(written: dict[str, object]) -> Iterator[Fault]:
    """Sources named twice, hints that hint at nothing, classes that there are not."""
    identify = mapping(written.get("runs")).get("identify")
    if identify == []:
        yield ("runs", "identify"), "at least one is needed here; write one, or remove the key"
    sources = [each.lower() if isinstance(each, str) else each for each in items(identify)]
    for at, _ in repeated(sources):
        yield ("runs", "identify", at), "stands in the list twice; keep one of the two"
    priority, classes = mapping(written.get("priority")), classes_of(written)
    own = str(priority.get("header", "x-priority")).lower()
    hints = [mapping(each) for each in items(priority.get("hints"))]
    named: list[object] = []
    for at, hint in enumerate(hints):
        yield from _hint(hint, ("priority", "hints", at), own, classes)
        header = hint.get("header")
        named.append(header.lower() if isinstance(header, str) else hint.get("body"))
    for at, _ in repeated(named):
        yield ("priority", "hints", at), "hints at what another one does already; keep one of the two"


def _hint(hint: dict[str, object], here: Path, own: str, classes: list[str]) -> Iterator[Fault]:
    if ("header" in hint) == ("body" in hint):
        what = "both; keep one" if "header" in hint else "neither; write one"
        yield here, f"a hint is a header or a member of the body, and this names {what}"
    if str(hint.get("header")).lower() == own:
        yield (
            (*here, "header"),
            "is priority.header itself, whose values are the classes; write another header",
        )
    by_value = hint.get("map")
    if by_value == {}:
        yield (*here, "map"), "stands for nothing; write such as {main: normal}"
    seen: set[str] = set()
    for written, name in mapping(by_value).items():
        path = (*here, "map", written)
        try:
            values = values_of(hint, written)
        except WrongValueError as error:
            yield path, str(error)
            continue
        if not seen.isdisjoint(values):
            yield path, "stands for a value that another key stands for; keep one of the two"
        seen.update(values)
        if isinstance(name, str) and classes and name not in classes:
            yield path, f"{shown(name)} is not one of priority.classes; {advice(name, classes)}"
