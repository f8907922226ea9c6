"""What the routes say against each other, the upstreams and the priority classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from proxy.dialects import DIALECTS, Dialect
from proxy.settings import words
from proxy.settings.checks_of_advice import advise_faults
from proxy.settings.document import Document
from proxy.settings.environment import WrongValueError, shown
from proxy.settings.nearest import advice
from proxy.settings.problems import Path
from proxy.settings.routes import pressure
from proxy.settings.units import rate, window
from proxy.settings.written import classes_of, items, mapping, repeated

Fault = tuple[Path, str]

_WHAT = {"name": "name", "path": "prefix"}


def route_faults(document: Document) -> Iterator[Fault]:
    """Duplicates, unknown names, and keys that mean nothing on their route."""
    routes = [mapping(each) for each in items(document.value.get("routes"))]
    upstreams = mapping(document.value.get("upstreams"))
    paths = [_prefix(route.get("path")) for route in routes]
    for what, values in (("name", [route.get("name") for route in routes]), ("path", paths)):
        for at, first in repeated(values):
            line = document.line(("routes", first, what))
            yield ("routes", at, what), f"the same {_WHAT[what]} as in line {line}; write another"
    classes = classes_of(document.value)
    dialects = {str(route.get("name")): _dialect(route.get("upstream"), upstreams) for route in routes}
    for at, route in enumerate(routes):
        here: Path = ("routes", at)
        dialect = DIALECTS.get(str(_dialect(route.get("upstream"), upstreams)))
        yield from _named(route.get("upstream"), (*here, "upstream"), upstreams)
        yield from _fallback(route, here, upstreams, dialect)
        yield from _retries(route, here, upstreams)
        yield from advise_faults(route, here, dialects)
        yield from _tools(route, here, dialect)
        yield from _tokens(route, here, dialect)
        yield from _models(route, here, dialect)
        yield from _shed(route, here, classes)
        queue = mapping(route.get("queue"))
        if queue.get("size") == 0 and queue.get("enforce") is False:
            yield (*here, "queue", "enforce"), "has no effect on a queue without places; write a size"


def _dialect(upstream: object, upstreams: Mapping[str, object]) -> object:
    return mapping(upstreams.get(str(upstream))).get("dialect")


def _prefix(value: object) -> str | None:
    """What the proxy tells routes apart by: `/tools` and `/tools/{tool}` are one prefix."""
    try:
        return words.path(value).removesuffix(words.TOOL_SEGMENT).rstrip("/")
    except WrongValueError:
        return None


def _named(value: object, path: Path, upstreams: Mapping[str, object]) -> Iterator[Fault]:
    if isinstance(value, str) and upstreams and value not in upstreams:
        yield path, f"{shown(value)} is not one of upstreams; {advice(value, upstreams)}"


def _fallback(
    route: Mapping[str, object], here: Path, upstreams: Mapping[str, object], dialect: Dialect | None
) -> Iterator[Fault]:
    for at, each in enumerate(items(route.get("fallback"))):
        rung, path = mapping(each), (*here, "fallback", at)
        if isinstance(each, dict) and not ("model" in rung or "upstream" in rung):
            yield path, "names no answer; write model, upstream or both"
        if "model" in rung and dialect is not None and not dialect.is_model_api:
            yield (*path, "model"), f"the dialect {dialect.name} has no models; write upstream"
        yield from _named(rung.get("upstream"), (*path, "upstream"), upstreams)
        other = mapping(upstreams.get(str(rung.get("upstream")))).get("dialect")
        if isinstance(other, str) and dialect is not None and other != dialect.name:
            yield (
                (*path, "upstream"),
                f"speaks {shown(other)}, and this route {shown(dialect.name)}; name one of the same",
            )
        if "model" not in rung and "upstream" in rung and rung["upstream"] == route.get("upstream"):
            yield (*path, "upstream"), "is the route's own upstream; write another one, or add a model"


def _retries(route: Mapping[str, object], here: Path, upstreams: Mapping[str, object]) -> Iterator[Fault]:
    """Retries need a budget: without one, an outage would see every call twice."""
    if route.get("retries", False) in (False, "off"):
        return
    names = [route.get("upstream"), *(mapping(rung).get("upstream") for rung in items(route.get("fallback")))]
    for name in names:
        if isinstance(name, str) and mapping(upstreams.get(name)).get("retry_budget") in (False, "off"):
            yield (
                (*here, "retries"),
                f"are paid for by the retry_budget of {name}, which is off; state one, or write retries: off",
            )


def _tools(route: Mapping[str, object], here: Path, dialect: Dialect | None) -> Iterator[Fault]:
    path = route.get("path")
    in_path = isinstance(path, str) and words.TOOL_SEGMENT in path
    if not isinstance(path, str) or dialect is None:
        return
    in_paths, in_bodies = _with_tools_in("path"), _with_tools_in("body")
    if in_path and dialect.tools_in != "path":
        yield (
            (*here, "path"),
            f"{{tool}} is for dialect {in_paths}; this upstream speaks {shown(dialect.name)}",
        )
    if not in_path and dialect.tools_in != "body":
        if "tools" in route:
            yield (
                (*here, "tools"),
                (
                    "calls of this route name no tool; "
                    f"write {{tool}} in path (dialect {in_paths}), or use dialect {in_bodies}"
                ),
            )
        for what in ("buckets", "quotas"):
            for at, each in enumerate(items(route.get(what))):
                if mapping(each).get("per") == "tool":
                    yield (*here, what, at, "per"), "calls of this route name no tool; write another per"
    if "codex_compatibility" in route and dialect.name != "openai":
        yield (
            (*here, "codex_compatibility"),
            f"is for dialect openai; this upstream speaks {shown(dialect.name)}; remove it",
        )
    if "mcp" in route and dialect.name != "mcp":
        yield (*here, "mcp"), f"is for dialect mcp; this upstream speaks {shown(dialect.name)}; remove it"


def _with_tools_in(where: str) -> str:
    return " or ".join(dialect.name for dialect in DIALECTS.values() if dialect.tools_in == where)


def _tokens(route: Mapping[str, object], here: Path, dialect: Dialect | None) -> Iterator[Fault]:
    """Tokens, and money by them, are counted where the dialect says what a call costs."""
    if dialect is None or dialect.is_model_api:
        return
    for at, each in enumerate(items(route.get("quotas"))):
        try:
            in_requests = window(mapping(each).get("allow")).unit == "requests"
        except WrongValueError:
            continue
        if not in_requests:
            yield (
                (*here, "quotas", at, "allow"),
                f"calls of the dialect {dialect.name} cost no tokens that anybody tells; write requests",
            )
    stated = [((*here, "buckets"), route.get("buckets"))]
    for name, tool in mapping(route.get("tools")).items():
        stated.append(((*here, "tools", name, "buckets"), mapping(tool).get("buckets")))
    for path, buckets in stated:
        for at, each in enumerate(items(buckets)):
            try:
                in_tokens = rate(mapping(each).get("rate")).unit != "requests"
            except WrongValueError:
                continue
            if in_tokens:
                yield (
                    (*path, at, "rate"),
                    f"calls of the dialect {dialect.name} cost no tokens that anybody tells; write requests",
                )


def _models(route: Mapping[str, object], here: Path, dialect: Dialect | None) -> Iterator[Fault]:
    """Models are counted where a call names one."""
    if dialect is None or dialect.is_model_api:
        return
    for what in ("buckets", "quotas"):
        for at, each in enumerate(items(route.get(what))):
            if mapping(each).get("per") == "model":
                yield (
                    (*here, what, at, "per"),
                    f"calls of the dialect {dialect.name} name no model; write another per",
                )


def _shed(route: Mapping[str, object], here: Path, classes: list[str]) -> Iterator[Fault]:
    stated: dict[str, float] = {}
    for name, value in mapping(route.get("shed")).items():
        if name not in classes:
            yield (
                (*here, "shed", name),
                f"{shown(name)} is not one of priority.classes; {advice(name, classes)}",
            )
            continue
        try:
            stated[name] = pressure(value)
        except WrongValueError:
            continue
    ranked = [name for name in classes if name in stated]
    for higher, lower in pairwise(ranked):
        if stated[higher] < stated[lower]:
            yield (
                (*here, "shed", higher),
                f"would be shed before {lower}, which is less urgent; write at least {stated[lower]:g}"
                if stated[lower] <= 1
                else f"would be shed before {lower}, which is less urgent; write never",
            )
