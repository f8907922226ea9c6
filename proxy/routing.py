"""From a path to a route: by prefix, the longest first, on the bytes as they came.

The prefix is stripped and the rest forwarded byte for byte. Nothing is decoded or normalised: `%2F`, `//`
and `..` mean to the upstream what they meant to the caller, and no spelling of them reaches another route.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from proxy.dialects import Dialect
from proxy.upstream import Upstream

TOOL: Final = "{tool}"


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to serve a call: an upstream, and another model than the one asked for (or "" to keep it)."""

    upstream: Upstream
    model: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """One configured route, ready to serve.

    `ladder` holds the first choice and then the fallbacks, which all speak `dialect`. `counts_retries` says
    whether its first upstream has a retry budget, so that repeats must be recognised.
    """

    name: str
    prefix: bytes
    names_tool: bool
    dialect: Dialect
    ladder: Sequence[Rung]
    counts_retries: bool
    refuse_as: str = "result"
    stop_status: int = 400


class Match(NamedTuple):
    """A route, the rest of the path after its prefix (with its slash, or empty), and the tool it names."""

    route: Route
    rest: bytes
    tool: str


class Table:
    """All routes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = sorted(routes, key=lambda route: len(route.prefix), reverse=True)

    @property
    def prefixes(self) -> list[str]:
        """What a caller may ask for."""
        return sorted(
            route.prefix.decode() + ("/" + TOOL if route.names_tool else "/") for route in self._routes
        )

    def find(self, path: bytes) -> Match | None:
        """The route of a raw path, or None. A prefix ends where a segment ends."""
        for route in self._routes:
            prefix = route.prefix
            if path.startswith(prefix):
                rest = path[len(prefix) :]
                if rest and not rest.startswith(b"/"):
                    continue
                if not route.names_tool:
                    return Match(route, rest, "")
                tool = rest[1:].partition(b"/")[0]
                if tool:
                    return Match(route, rest, tool.decode("latin-1"))
        return None


def prefix_of(path: str) -> tuple[bytes, bool]:
    """A configured path as a prefix without its last slash, and whether `{tool}` follows it."""
    names_tool = TOOL in path
    return path.partition("/" + TOOL)[0].rstrip("/").encode(), names_tool
