"""What `advise:` names: routes that there are, and that their callers could use instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from proxy.settings.advise import MOST_ROUTES
from proxy.settings.environment import shown
from proxy.settings.nearest import advice
from proxy.settings.problems import Path
from proxy.settings.written import items, mapping

Fault = tuple[Path, str]


def advise_faults(
    route: Mapping[str, object],
    here: Path,
    dialects: Mapping[str, object],
) -> Iterator[Fault]:
    """Unknown routes, and those of which a caller could make nothing. `dialects`: of each route by name."""
    stated = mapping(route.get("advise"))
    path = (*here, "advise")
    if "advise" in route and not stated.get("routes") and "model" not in stated:
        yield path, "names nothing; write routes, model or both"
    dialect, named = dialects.get(str(route.get("name"))), items(stated.get("routes"))
    for at, other in enumerate(named):
        if not isinstance(other, str):
            continue
        if other == route.get("name"):
            yield (*path, "routes", at), "is this route itself; name another one"
        elif other not in dialects:
            yield (*path, "routes", at), f"{shown(other)} is not one of routes; {advice(other, dialects)}"
        elif isinstance(dialect, str) and isinstance(dialects[other], str) and dialects[other] != dialect:
            told = f"speaks {shown(dialects[other])}, and this route {shown(dialect)}"
            yield (*path, "routes", at), f"{told}; name one of the same"
    if len(named) > MOST_ROUTES:
        yield (*path, "routes"), f"are looked at for every refusal; write {MOST_ROUTES} at most"
    if "model" in stated and dialect in ("mcp", "rest"):
        yield (*path, "model"), f"the dialect {dialect} has no models; remove it"
