"""`upstreams:` what stands behind the proxy, and how it is treated."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema

from proxy.settings.environment import WrongValueError, shown
from proxy.settings.section import OrOff, Section
from proxy.settings.units import Duration, DurationOrZero, RetryFloor
from proxy.settings.words import (
    CredentialName,
    Ratio,
    Secret,
    SomeRatio,
    Switch,
    Url,
    Whole,
    one_of,
    text,
    whole,
)

DIALECTS = ("openai", "anthropic", "mcp", "rest")
DEFAULT_CONCURRENCY = 64


def _cap(value: object) -> int:
    if value == "adaptive" or isinstance(value, dict):
        raise WrongValueError(
            f"a learnt cap is not built yet in this release; write a number, such as {DEFAULT_CONCURRENCY}"
        )
    return whole(1, 1_000_000, DEFAULT_CONCURRENCY)(value)


def _ca_file(value: object, info: ValidationInfo) -> Path:
    """A readable PEM file; a relative path begins at the folder of the YAML."""
    file = Path((info.context or {}).get("folder", ".")) / text(value)
    try:
        pem = file.read_bytes()
    except (OSError, ValueError):
        raise WrongValueError(
            f"the file {shown(value)} cannot be read; write the path of a PEM file"
        ) from None
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise WrongValueError(f"the file {shown(value)} holds no certificate; write the path of a PEM file")
    try:
        ssl.create_default_context(cadata=pem.decode("ascii", "ignore"))
    except ssl.SSLError:
        raise WrongValueError(
            f"the file {shown(value)} holds a broken certificate; write the path of a PEM file"
        ) from None
    return file


Dialect = Annotated[
    Literal["openai", "anthropic", "mcp", "rest"], BeforeValidator(one_of(*DIALECTS, later=("gemini",)))
]
UpstreamCap = Annotated[int, BeforeValidator(_cap), WithJsonSchema({"type": "integer", "minimum": 1})]
CaFile = Annotated[Path, BeforeValidator(_ca_file), WithJsonSchema({"type": "string", "minLength": 1})]


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


class BreakerSection(Section):
    """When the upstream counts as down, and how it is tried again."""

    failure_ratio: SomeRatio = Field(
        default=0.5, description="Trips when this share of the window's calls failed."
    )
    slow_call_s: Duration = Field(
        default="60s",
        alias="slow_call",
        validate_default=True,
        description="A call that took this long is slow.",
    )
    slow_ratio: SomeRatio = Field(
        default=0.8, description="Trips when this share of the window's calls was slow."
    )
    window_s: Duration = Field(
        default="30s", alias="window", validate_default=True, description="How far back calls are counted."
    )
    minimum_calls: Whole = Field(
        default=20, description="Fewer calls in the window than this decide nothing."
    )
    open_for_s: Duration = Field(
        default="15s",
        alias="open_for",
        validate_default=True,
        description="How long calls are refused before a probe.",
    )
    probes: Whole = Field(default=3, description="Trial calls at a time while the upstream is tried again.")


class RetryBudgetSection(Section):
    """How many of the calls may be retries, so that retries cannot multiply an overload."""

    ratio: Ratio = Field(default=0.1, description="Retries per first attempt.")
    floor: RetryFloor = Field(
        default="10 per minute",
        validate_default=True,
        description="Retries that are always paid for, besides.",
    )


class Tls(Section):
    """How an https upstream proves who it is."""

    ca: CaFile | None = Field(
        default=None,
        description="PEM file of the private authority to trust in place of the system's.",
        examples=["ca.pem"],
    )
    verify: Switch = Field(default=True, description="false accepts any certificate: for a test bench only.")


class Connections(Section):
    """The kept connections to the upstream."""

    idle_for_s: DurationOrZero = Field(
        default="15s",
        alias="idle_for",
        validate_default=True,
        description=(
            "An idle connection is kept this long. Keep it below the upstream's own keep-alive time "
            "(nginx 75s, AWS load balancers 60s, Node and uvicorn 5s). 0s: a new one for each call."
        ),
    )


class Upstream(Section):
    """One API behind the proxy."""

    url: Url = Field(
        description="http:// or https://, host, optional port and base path; no query, no credentials.",
        examples=["https://api.openai.com"],
    )
    dialect: Dialect = Field(
        description="How it speaks; refusals are told the same way.", examples=["openai"]
    )
    credentials: dict[CredentialName, Secret] = Field(
        default_factory=dict,
        description="Headers sent in place of the caller's credentials: agents hold no provider's key.",
        examples=[{"authorization": "Bearer ${OPENAI_API_KEY}"}],
    )
    concurrency: UpstreamCap = Field(
        default=DEFAULT_CONCURRENCY, description="Calls in flight at once, from all routes."
    )
    timeouts: Timeouts = Field(default_factory=Timeouts, description="Bounds in time.")
    breaker: OrOff[BreakerSection] = Field(
        default_factory=BreakerSection, description="Refuses at once while the upstream is down; or off."
    )
    retry_budget: OrOff[RetryBudgetSection] = Field(
        default_factory=RetryBudgetSection, description="Bounds the share of retries; or off."
    )
    tls: Tls = Field(default_factory=Tls, description="For https upstreams with a private authority.")
    connections: Connections = Field(default_factory=Connections, description="Kept connections.")
