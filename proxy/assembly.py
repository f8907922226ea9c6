"""From settings to what serves: the routes, who may do what, a client for each upstream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from proxy.advising import advises_of
from proxy.core.repeats import TELLING_BYTES
from proxy.dialects import dialect_named
from proxy.dialects.in_body import RUN_SOURCES, URGENCY_SOURCES, InBody
from proxy.identity import Identity, Standing, fingerprint
from proxy.routing import Route, Rung, Table, prefix_of
from proxy.run_names import RunNames
from proxy.settings import Settings
from proxy.settings.costing import counts_tokens, is_model_api, prices_of
from proxy.settings.retries import Retries as RetriesSection
from proxy.settings.routes import Bucket as BucketSection
from proxy.settings.routes import Quota as QuotaSection
from proxy.settings.routes import Route as RouteSection
from proxy.upstream import Retries, Upstream
from proxy.urgency import Hint, Hints
from proxy.wire import SMALL_BYTES


def table_of(settings: Settings, upstreams: Mapping[str, Upstream]) -> Table:
    """The routes, ready to serve."""
    routes = []
    prices = prices_of(settings)
    for route in settings.routes:
        first = settings.upstreams[route.upstream]
        prefix, names_tool = prefix_of(route.path)
        priced = prices is not None and is_model_api(settings, route)
        rungs = [Rung(upstreams[route.upstream], asks_usage=first.ask_usage)]
        for rung in route.fallback:
            name = rung.upstream or route.upstream
            section = settings.upstreams[name]
            foreign = urlsplit(section.url)[:2] != urlsplit(first.url)[:2]
            rungs.append(Rung(upstreams[name], rung.model or "", foreign, section.ask_usage))
        routes.append(
            Route(
                name=route.name,
                prefix=prefix,
                names_tool=names_tool,
                dialect=dialect_named(first.dialect),
                ladder=tuple(rungs),
                counts_retries=bool(first.retry_budget),
                refuse_as=route.mcp.refuse_as,
                stop_status=route.stop_status,
                counts_tokens=counts_tokens(settings, route),
                reads_body=_counts_models(route) or priced,
                retries=_retries(route.retries) if route.retries else None,
                advises=advises_of(settings, route.name),
                kept_bytes=_kept_bytes(route, counts_retries=bool(first.retry_budget)),
                in_body=_in_body(settings, first.dialect),
                codex="" if first.dialect != "openai" else _CODEX[route.codex_compatibility],
                prices=prices if priced else None,
            )
        )
    return Table(routes)


def _counts_models(route: RouteSection) -> bool:
    allowances: list[BucketSection | QuotaSection] = [*route.buckets, *route.quotas]
    return any(each.per == "model" for each in allowances)


_CODEX: Final = {"auto": "auto", "on": "on", "off": ""}


def _in_body(settings: Settings, dialect: str) -> InBody | None:
    """What to ask a body of this dialect for: only what the configuration names."""
    runs = RunNames(settings.runs.identify)
    run_before = max(
        (runs.before(name) for name, speaks in RUN_SOURCES.items() if speaks == dialect), default=-1
    )
    urgency = any(
        hint.body is not None and URGENCY_SOURCES[hint.body] == dialect for hint in settings.priority.hints
    )
    return InBody(dialect, run_before, urgency=urgency) if urgency or run_before >= 0 else None


def _kept_bytes(route: RouteSection, *, counts_retries: bool) -> int:
    """What may be sent twice must be whole; and a repeat is known by the digest of what failed."""
    if route.retries or route.fallback:
        return SMALL_BYTES
    return TELLING_BYTES - 1 if counts_retries else 0


def _retries(section: RetriesSection) -> Retries:
    return Retries(
        connect="connect" in section.when,
        reset="reset" in section.when,
        timeout="timeout" in section.when,
        statuses=section.statuses,
        every_call=section.calls == "all",
        backoff_s=section.backoff_s,
        longest_told_s=section.retry_after_s,
    )


def identity_of(settings: Settings) -> Identity:
    """Who may do what, by the mark of its key."""
    classes, callers = settings.priority.classes, settings.callers
    top = callers.default.max_priority or classes[0]
    known = {
        fingerprint(caller.key.get_secret_value().encode()): Standing(
            caller.name, classes.index(caller.max_priority or top), caller.weight
        )
        for caller in callers.known
    }
    return Identity(
        identify=callers.identify,
        known=known,
        default=Standing("", classes.index(top), callers.default.weight),
        priority_header=settings.priority.header,
        classes=classes,
        default_class=settings.priority.default,
        runs=RunNames(settings.runs.identify),
        hints=Hints(
            [
                Hint(
                    (hint.header or "").encode(),
                    {value.encode(): classes.index(name) for value, name in hint.values},
                )
                for hint in settings.priority.hints
            ]
        ),
    )


def upstreams_of(settings: Settings) -> dict[str, Upstream]:
    """A client for each upstream; none connects before its first call."""
    return {name: upstream_of(name, settings) for name in settings.upstreams}


def upstream_of(name: str, settings: Settings) -> Upstream:
    upstream = settings.upstreams[name]
    return Upstream(
        name,
        upstream.url,
        credentials={header: secret.get_secret_value() for header, secret in upstream.credentials.items()},
        # Who identifies itself to us by a header of our own does not mean the provider to see it.
        private=settings.callers.identify,
        trusted_hops=settings.forwarded.trusted_hops,
        connect_s=upstream.timeouts.connect_s,
        first_byte_s=upstream.timeouts.first_byte_s,
        idle_s=upstream.timeouts.idle_s,
        total_s=upstream.timeouts.total_s,
        stream_buffer_bytes=upstream.stream_buffer_bytes,
        idle_for_s=upstream.connections.idle_for_s,
        max_age_s=upstream.connections.max_age_s,
        max_connections=upstream.connections.max,
        ca=upstream.tls.ca,
        cert=upstream.tls.cert,
        key=upstream.tls.key,
        verify=upstream.tls.verify,
        http2=upstream.http2,
        proxy=upstream.proxy.get_secret_value() or None,
        listens=upstream.pace is not None or bool(upstream.limit_patterns),
        limit_patterns=upstream.limit_patterns,
    )


def wiring(settings: Settings, name: str) -> tuple[object, ...]:
    """What of an upstream's settings needs new connections when it changes."""
    upstream = settings.upstreams[name]
    return (
        upstream.url,
        upstream.credentials,
        upstream.timeouts,
        upstream.tls,
        upstream.connections,
        upstream.http2,
        upstream.proxy,
        upstream.stream_buffer_bytes,
        upstream.pace,
        upstream.limit_patterns,
        settings.callers.identify,
        settings.forwarded,
    )
