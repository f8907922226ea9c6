"""`upstreams:` what stands behind the proxy, and how it is treated."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ConfigDict, Field, SecretStr, WithJsonSchema

from proxy.dialects import DIALECTS
from proxy.settings.breakers import BreakerSection, RetryBudgetSection
from proxy.settings.concurrency import UPSTREAM_EXAMPLE, UpstreamConcurrency
from proxy.settings.environment import WrongValueError
from proxy.settings.pacing import LimitPatterns, Pace
from proxy.settings.pauses import PauseWhen
from proxy.settings.pem import Authority, CertificateFile, OwnKey, Verify
from proxy.settings.preset_keys import Credentials, PresetName, unless_preset
from proxy.settings.section import OFF, OrOff, Section
from proxy.settings.units import Duration, DurationOrOff, DurationOrZero, Size
from proxy.settings.words import (
    Switch,
    Url,
    one_of,
    text,
    whole,
)

PROXY = r"^(https?|socks5h?)://([^\s/@]*@)?[^\s/?#@]+/?$"


def _most(value: object) -> int | None:
    return None if value is False or value == "off" else whole(1, 1_000_000, UPSTREAM_EXAMPLE)(value)


def _proxy(value: object) -> str:
    """`off`, `env`, or the URL of a proxy. No error repeats it: it may hold a password."""
    if value is False or value == "off":
        return ""
    if value == "env":
        return "env"
    url = str(text(value))
    if not re.fullmatch(PROXY, url):
        raise WrongValueError(
            "off, env or a proxy's URL is needed here; write such as http://proxy:3128 or socks5://proxy:1080"
        )
    try:
        parts = urlsplit(url)
        lost = not parts.hostname or parts.port == 0
    except ValueError:
        lost = True
    if lost:
        raise WrongValueError("the proxy's host or port cannot be read; write such as http://10.0.0.7:3128")
    return url


Dialect = Annotated[
    str, BeforeValidator(one_of(*DIALECTS)), WithJsonSchema({"type": "string", "enum": list(DIALECTS)})
]
OutboundProxy = Annotated[
    SecretStr,
    BeforeValidator(_proxy),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^env$|{PROXY}"}, {"enum": list(OFF)}]}),
]
MostConnections = Annotated[
    int | None,
    BeforeValidator(_most),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"enum": list(OFF)}]}),
]


class Timeouts(Section):
    """How long each step of a call to the upstream may take."""

    connect_s: Duration = Field(
        default="5s",
        alias="connect",
        validate_default=True,
        description="To open a connection, TLS included.",
    )
    first_byte_s: Duration = Field(
        default="120s",
        alias="first_byte",
        validate_default=True,
        description="From the request sent to the head of the answer; a model may think that long.",
    )
    idle_s: Duration = Field(
        default="60s",
        alias="idle",
        validate_default=True,
        description="Between two pieces of a body, either way.",
    )
    total_s: DurationOrOff = Field(
        default=None,
        alias="total",
        description=(
            "For the whole call to the upstream, from its connection to the last byte of its answer; it cuts "
            "a stream too. Off unless stated, as in nginx: Envoy's 15s for a route end every longer stream."
        ),
        examples=["10m"],
    )


class Tls(Section):
    """How an https upstream proves who it is, and we to it. Renewed files are taken up at a reload."""

    ca: Authority = None
    cert: CertificateFile | None = Field(
        default=None,
        description="PEM file of our own certificate and its chain, for an upstream that asks (mutual TLS).",
        examples=["client.pem"],
    )
    key: OwnKey = None
    verify: Verify = True


class Connections(Section):
    """The kept connections to the upstream."""

    idle_for_s: DurationOrZero = Field(
        default="4s",
        alias="idle_for",
        validate_default=True,
        description=(
            "An idle connection is kept this long. Keep it below the upstream's own keep-alive time, or a "
            "call may meet its end (Node and uvicorn 5s, AWS load balancers 60s, nginx 75s). 0s: a new one "
            "for each call."
        ),
    )
    max_age_s: Duration = Field(
        default="1h",
        alias="max_age",
        validate_default=True,
        description=(
            "One older than this carries no further call, so that a change in DNS takes effect at the latest "
            "then (nginx keepalive_time 1h; Envoy max_connection_duration has no default)."
        ),
    )
    max: MostConnections = Field(
        default=None,
        description=(
            "So many at once, at least the upstream's concurrency; calls that no cap counts (the sessions of "
            "MCP) need room above it. Who finds none waits for one, up to timeouts.connect. Off unless "
            "stated: the cap bounds them (nginx max_conns 0)."
        ),
        examples=[100],
    )


class Upstream(Section):
    """One API behind the proxy."""

    model_config = ConfigDict(json_schema_extra=unless_preset)

    preset: PresetName | None = Field(
        default=None,
        exclude=True,  # by now all that it says stands in the other keys
        description=(
            "A known provider: fills in url, dialect and time limits beneath what is stated here "
            "(docs/presets.md; backpressure check --show). Sends no key unless credentials says so."
        ),
        examples=["openai"],
    )
    url: Url = Field(
        description="http:// or https://, host, optional port and base path; no query, no credentials.",
        examples=["https://api.openai.com"],
    )
    dialect: Dialect = Field(
        description="How it speaks; refusals are told the same way.", examples=["openai"]
    )
    credentials: Credentials = Field(
        default_factory=dict,
        description=(
            "Headers sent in place of the caller's credentials: agents hold no provider's key. With a preset "
            "also env: its own header, with the key from the variable that its SDK reads. Default: the "
            "caller's own goes through."
        ),
        examples=[{"authorization": "Bearer ${OPENAI_API_KEY}"}, "env"],
    )
    concurrency: UpstreamConcurrency = Field(
        default="adaptive",
        validate_default=True,
        description=(
            "Calls in flight at once, from all routes: a number, or adaptive, learnt from how its times grow "
            "with them and from its refusals. No peer learns unless told to; a number that nobody measured "
            "is worse."
        ),
        examples=["adaptive"],
    )
    timeouts: Timeouts = Field(default_factory=Timeouts, description="Bounds in time.")
    breaker: OrOff[BreakerSection] = Field(
        default_factory=BreakerSection, description="Refuses at once while the upstream is down; or off."
    )
    retry_budget: OrOff[RetryBudgetSection] = Field(
        default_factory=RetryBudgetSection, description="Bounds the share of retries; or off."
    )
    pause_when: PauseWhen | None = Field(
        default=None, description="Holds priorities that can wait while it is slow to answer."
    )
    pace: Pace = Field(
        default="told",
        validate_default=True,
        description=(
            "told: where its answers say what is left of its own limits (x-ratelimit-*, "
            "anthropic-ratelimit-*, RateLimit), calls are paced by that before it refuses one, and a 429 "
            "with a time holds them all until then. No cost where nothing of the kind is said. Or off."
        ),
        examples=["off"],
    )
    limit_patterns: LimitPatterns = Field(
        default=(),
        description=(
            "Regular expressions, without regard to case: a 200 with one in its first 4096 bytes says that a "
            "limit was met, as tools do, and counts as a 429 of that tool. A group (?P<seconds>...) is when "
            "to ask again. At most 16 of 200 characters; none unless stated: a text may quote another."
        ),
        examples=[["rate limit exceeded, retry in (?P<seconds>[0-9]+)s"]],
    )
    tls: Tls = Field(
        default_factory=Tls, description="For https upstreams with a private authority, or with mutual TLS."
    )
    connections: Connections = Field(
        default_factory=Connections, description="How many, how old, how long idle."
    )
    http2: Switch = Field(
        default=False,
        description=(
            "true for an upstream that speaks HTTP/2 only; each call then costs some ten times as much of "
            "a core. An https upstream may still choose HTTP/1.1; an http one is spoken to in HTTP/2 at once."
        ),
    )
    proxy: OutboundProxy = Field(
        default="off",
        validate_default=True,
        description=(
            "Outbound proxy on the way to it: http://, https:// or socks5:// and its host and port, with "
            "user:password@ if it asks for them; env follows HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and "
            "NO_PROXY. Off unless stated: what a shell happens to set must not reroute production (nor does "
            "it with nginx and Envoy). Costs as much as http2."
        ),
        examples=["http://proxy.internal:3128", "env"],
    )
    ask_usage: Switch = Field(
        default=True,
        description=(
            "Where a route counts tokens, a stream of Chat Completions whose caller did not ask for its "
            "usage is asked for it (stream_options.include_usage), and what comes of that is taken out "
            "again: nothing else tells what such a stream has used. false for an upstream that refuses "
            "members it does not know: what was delivered is then counted by its events. For dialect openai."
        ),
    )
    stream_buffer_bytes: Size = Field(
        default="64KiB",
        alias="stream_buffer",
        validate_default=True,
        description=(
            "What is held of one call, each way, before the side that sends is not read any more (of a "
            "request 256KiB where nothing is stated); one read, up to 256KiB, may come on top, and of a "
            "request up to 1MiB read ahead "
            "(nginx proxy_buffers 8 x 4KiB, Envoy per_connection_buffer_limit_bytes 1MiB)."
        ),
    )
