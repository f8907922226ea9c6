"""Buckets and quotas: no two under one count, and one allowance for each upstream."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.settings.document import Document
from proxy.settings.environment import WrongValueError
from proxy.settings.problems import Path
from proxy.settings.units import Rate, rate, window
from proxy.settings.units import burst as burst_of
from proxy.settings.words import switch
from proxy.settings.written import items, mapping

Fault = tuple[Path, str]
Stated = tuple[Path, str, Rate, object, bool]


def allowance_faults(document: Document) -> Iterator[Fault]:
    """What buckets and quotas say against each other."""
    shared: dict[tuple[object, ...], Stated] = {}
    for at, each in enumerate(items(document.value.get("routes"))):
        route = mapping(each)
        here: Path = ("routes", at)
        for what in ("buckets", "quotas"):
            stated = list(_stated(route.get(what), (*here, what), "route"))
            yield from _twice(stated, document)
            for one in stated:
                if one[1] == "upstream":
                    period_s = one[2].period_s if what == "quotas" else None
                    count = (what, route.get("upstream"), one[2].unit, period_s)
                    first = shared.setdefault(count, one)
                    yield from _disagreement(first, one, str(route.get("upstream")), document)
        for name, tool in mapping(route.get("tools")).items():
            path = (*here, "tools", name, "buckets")
            stated = list(_stated(mapping(tool).get("buckets"), path, "tool"))
            yield from _twice(stated, document)
            if name == "*":
                yield from _under_any_tool(stated)


def _stated(value: object, path: Path, per: str) -> Iterator[Stated]:
    for at, each in enumerate(items(value)):
        written = mapping(each)
        try:
            allowance = window(written.get("allow")) if path[-1] == "quotas" else rate(written.get("rate"))
        except WrongValueError:
            continue
        per_whom, burst = str(written.get("per", per)), written.get("burst")
        yield (*path, at), per_whom, allowance, burst, _is_enforced(written.get("enforce", True))


def _twice(stated: list[Stated], document: Document) -> Iterator[Fault]:
    """Two allowances of one kind over one time: the smaller decides, and they would share one count."""
    first: dict[tuple[str, str, float], Path] = {}
    for path, per, allowance, _, _ in stated:
        shared = per == "upstream" and path[-2] == "buckets"
        count = (per, allowance.unit, 0.0 if shared else allowance.period_s)
        if (before := first.setdefault(count, path)) != path:
            line = document.line(before)
            yield path, f"counts the same as line {line}; keep one of the two, or write another per or period"


def _disagreement(first: Stated, other: Stated, upstream: str, document: Document) -> Iterator[Fault]:
    if first[0][1] == other[0][1]:
        return  # one route: told as twice the same
    same_rate = abs(first[2].per_s - other[2].per_s) < 1e-9 * first[2].per_s
    if not same_rate or _burst(first) != _burst(other):
        line = document.line(first[0])
        yield (
            other[0],
            f"states another allowance of upstream {upstream} than line {line}; they are one count: agree",
        )
    elif first[4] != other[4]:
        line = document.line(first[0])
        yield (
            other[0],
            f"says of upstream {upstream} another enforce than line {line}; they are one count: agree",
        )


def _is_enforced(value: object) -> bool:
    try:
        return switch(value)
    except WrongValueError:
        return True


def _burst(stated: Stated) -> float:
    burst = stated[3]
    try:
        return float(burst_of(burst))
    except WrongValueError:
        return default_burst(stated[2])


def default_burst(allowance: Rate) -> float:
    """What one second of the rate allows, at least 1: providers enforce windows of 1 to 10 seconds
    (reference/overload-control.md 4.1), so a larger burst would be refused by them.

    Of tokens all that the rate states: one call may cost what the rate allows in many seconds, and would
    never pass. Anthropic's own buckets hold as much ("replenished up to your maximum limit"), and OpenAI
    refuses as too large only what is above a whole minute's.
    """
    return max(1.0, allowance.amount if allowance.unit != "requests" else allowance.per_s)


def _under_any_tool(stated: list[Stated]) -> Iterator[Fault]:
    for path, per, _, _, _ in stated:
        if per in {"caller", "run"}:
            yield (
                (*path, "per"),
                f'under "*" all other tools would share one count per {per}; write tool, or name each tool',
            )
