"""From a path to a route: by prefix, the longest first, on the bytes as they came.

The prefix is stripped and the rest forwarded byte for byte: `%2F`, `//` and `;` mean to the upstream what
they meant to the caller. Only two things are read as an upstream may read them, decoded: the tool that a path
names, so that no spelling of it escapes its caps, and `..`, so that none leaves the route.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

import httptools

from proxy.core.prices import Prices
from proxy.dialects import Ask, Dialect
from proxy.dialects.in_body import InBody
from proxy.upstream import Retries, Upstream

TOOL: Final = "{tool}"

LONGEST_KEPT: Final = 256
MOST_KEPT: Final = 2048
"""Paths remembered, and their length in bytes: half a megabyte at most."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to serve a call: an upstream, and another model than the one asked for (or "" to keep it).

    `foreign`: it is another provider than the first choice, which is not to see the caller's credentials.
    `asks_usage`: its streams of Chat Completions may be asked for their usage, though the caller did not.
    """

    upstream: Upstream
    model: str = ""
    foreign: bool = False
    asks_usage: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """Another route, under this `path`, and its first upstream. `counts_tokens` as of a `Route`."""

    route: str
    path: str
    upstream: str
    counts_tokens: bool


@dataclass(frozen=True, slots=True)
class Advises:
    """What refused callers may be told: other ways, the first that has room, and a cheaper model, or ""."""

    ways: Sequence[Way]
    model: str


@dataclass(frozen=True, slots=True)
class Route:
    """One configured route, ready to serve.

    `ladder` holds the first choice and then the fallbacks, which all speak `dialect`. `counts_retries` says
    whether its first upstream has a retry budget, so that repeats must be recognised; `counts_tokens` whether
    tokens or money are, so that calls must be estimated and their answers read. `retries` is None where
    no call is repeated by us, `advises` where refused callers are told of no other way. `reads_body`: what a
    body asks for is known before its call is decided. `in_body` is what a body may say of its run and
    urgency; None: it is not asked. `codex` says which releases of Codex are refused by an event: "auto" those
    that need it, "on" all, "" none. Bodies of up to `kept_bytes` are kept whole. With `prices` calls that
    cost tokens cost money, too.
    """

    name: str
    prefix: bytes
    names_tool: bool
    dialect: Dialect
    ladder: Sequence[Rung]
    counts_retries: bool
    refuse_as: str = "result"
    stop_status: int = 400
    counts_tokens: bool = False
    reads_body: bool = False
    retries: Retries | None = None
    advises: Advises | None = None
    in_body: InBody | None = None
    codex: str = ""
    kept_bytes: int = 0
    prices: Prices | None = None


class Match(NamedTuple):
    """A route, the rest of the path after its prefix (with its slash, or empty), and the tool it names.

    `climbs`: the `..` of the path lead out of the route, or out of the tool it names, somewhere on the way.
    `costs_tokens`: a POST of it does, and the route counts them; `input_only`: those it sends. `ask` is
    what the path says of the model, where the route reads bodies for it: then none is read.
    """

    route: Route
    rest: bytes
    tool: str
    climbs: bool
    costs_tokens: bool
    input_only: bool
    ask: Ask | None


class Table:
    """All routes. The paths asked for lately are remembered: a fleet asks for few."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = sorted(routes, key=lambda route: len(route.prefix), reverse=True)
        self._found: dict[bytes, Match] = {}

    @property
    def prefixes(self) -> list[str]:
        """What a caller may ask for."""
        return sorted(
            route.prefix.decode() + ("/" + TOOL if route.names_tool else "/") for route in self._routes
        )

    def find(self, path: bytes) -> Match | None:
        """The route of a raw path, or None. A prefix ends where a segment ends."""
        match = self._found.get(path)
        if match is None:
            match = self._look(path)
            if match is not None and len(path) <= LONGEST_KEPT:
                if len(self._found) >= MOST_KEPT:
                    self._found.clear()
                self._found[path] = match
        return match

    def _look(self, path: bytes) -> Match | None:
        for route in self._routes:
            prefix = route.prefix
            if path.startswith(prefix):
                rest = path[len(prefix) :]
                if rest and not rest.startswith(b"/"):
                    continue
                tool = unquote(rest[1:].partition(b"/")[0].decode("latin-1")) if route.names_tool else ""
                if tool or not route.names_tool:
                    dialect = route.dialect
                    costs = route.counts_tokens and dialect.costs_tokens(path)
                    model = dialect.model_in(rest) if route.reads_body or costs else ""
                    return Match(
                        route,
                        rest,
                        tool,
                        climbs=_climbs(route, rest),
                        costs_tokens=costs,
                        input_only=dialect.answers_no_text(path),
                        ask=Ask(model=model, stream=dialect.streams(rest)) if model else None,
                    )
        return None


def split(target: bytes) -> tuple[bytes, bytes | None]:
    """Path and query of a request's target, byte for byte; of an absolute one, those after its authority.

    No query is None, and one of no bytes behind its question mark is b"".
    """
    if not target.startswith(b"/"):
        parsed: Any = httptools.parse_url(target)  # its stubs leave out that each part may be None
        return parsed.path or b"", parsed.query
    path, mark, query = target.partition(b"?")
    return path, query if mark else None


def _climbs(route: Route, rest: bytes) -> bool:
    if b".." not in rest and b"%" not in rest:
        return False
    depth, least = 0, -1
    for segment in re.split(rb"[/\\\\]", unquote_to_bytes(rest)):
        if segment == b"..":
            depth -= 1
        elif segment not in (b"", b"."):
            depth += 1
        if least < 0 and depth > 0:
            least = int(route.names_tool)  # from the tool's own segment on, never above it again
        if depth < max(least, 0):
            return True
    return False


def prefix_of(path: str) -> tuple[bytes, bool]:
    """A configured path as a prefix without its last slash, and whether `{tool}` follows it."""
    names_tool = TOOL in path
    return path.partition("/" + TOOL)[0].rstrip("/").encode(), names_tool
