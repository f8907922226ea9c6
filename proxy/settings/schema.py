"""What the YAML may say at its top; the larger parts have files of their own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from proxy.settings.concurrency import Concurrency
from proxy.settings.environment import WrongValueError
from proxy.settings.hints import Hint
from proxy.settings.inbound import CallerConnections, Forwarded, Headers
from proxy.settings.money import Prices
from proxy.settings.routes import Route
from proxy.settings.run_budget import RunBudgetOrOff
from proxy.settings.runs import Runs
from proxy.settings.section import Section
from proxy.settings.store import WhereCounted
from proxy.settings.units import DurationOrZero, Size
from proxy.settings.upstreams import Upstream
from proxy.settings.words import CallerKey, HeaderName, Listen, Name, Secret, Text, Weight

DEFAULT_CLASSES = ("critical", "normal", "background")


class AtLeastOne:
    """A list or mapping that must not be empty as it is written. pydantic's own `min_length` counts the
    valid items only, and would tell of a missing route where one has a fault."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Look before the items are validated."""
        return core_schema.no_info_before_validator_function(_at_least_one, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The same for editors."""
        inner = handler(schema)
        return {**inner, "minItems" if inner["type"] == "array" else "minProperties": 1}


def _at_least_one(value: object) -> object:
    if isinstance(value, list | dict) and not value:
        raise WrongValueError("at least one is needed here; write one")
    return value


class Admin(Section):
    """The control plane: health, metrics and state."""

    listen: Listen = Field(default="127.0.0.1:8081", validate_default=True, description="HOST:PORT.")
    token: Secret | None = Field(
        default=None,
        description="Bearer token to ask for. Required when listen is not loopback.",
        examples=["${BACKPRESSURE_ADMIN_TOKEN}"],
    )


class Priority(Section):
    """The classes of urgency."""

    header: HeaderName = Field(
        default="x-priority", description="The header in which a caller states its class."
    )
    classes: Annotated[tuple[Name, ...], AtLeastOne()] = Field(
        default=DEFAULT_CLASSES,
        description="Most urgent first: the first is the last to be shed.",
    )
    default: Text = Field(
        default="normal", description="For calls that state none, or one that is not known."
    )
    hints: tuple[Hint, ...] = Field(
        default=(),
        description=(
            "What agents send by themselves, for calls without the header above: the first that says "
            "something is believed, up to the caller's max_priority. None unless stated: what a word of "
            "theirs is worth is the operator's to say."
        ),
    )


class CallerDefaults(Section):
    """What holds for a caller that is not listed."""

    max_priority: Text = Field(
        default="",
        description="The highest class it may state. Default: the first class.",
        examples=["normal"],
    )
    weight: Weight = Field(default=1.0, description="Its share against other callers of its class.")
    concurrency: Concurrency | None = Field(
        default=None,
        description=(
            "Calls of one caller in flight at once, over all routes; more wait in the queue of their route. "
            "Off unless stated, as nginx's limit_conn. Those who name themselves by no header are one caller."
        ),
    )
    run_budget: RunBudgetOrOff = Field(
        default=None,
        description=(
            "What each of a caller's runs may have in all, over all routes. Off unless stated. Calls that "
            "name no run have none."
        ),
        examples=[{"calls": 500, "wall_time": "2h"}],
    )


class KnownCaller(Section):
    """A caller with a name and rules of its own."""

    name: Name = Field(description="Shown in place of the hash of its key.", examples=["nightly-evals"])
    key: CallerKey = Field(
        description="What it sends in one of the identify headers (without `Bearer `).",
        examples=["${NIGHTLY_KEY}"],
    )
    max_priority: Text = Field(
        default="",
        description="The highest class it may state. Default: that of callers.default.",
        examples=["background"],
    )
    weight: Weight = Field(default=1.0, description="Its share against other callers of its class.")
    concurrency: Concurrency | None = Field(
        default=None,
        description="Its calls in flight at once, over all routes. Default: that of callers.default.",
    )
    run_budget: RunBudgetOrOff = Field(
        default=None,
        description="What each of its runs may have in all. Default: that of callers.default; off: all.",
        examples=[{"calls": 2000, "money": "20 USD"}],
    )


class Callers(Section):
    """Who is charged for a call."""

    identify: Annotated[tuple[HeaderName, ...], AtLeastOne()] = Field(
        default=("x-caller-id", "authorization", "x-api-key", "x-goog-api-key"),
        description="The first of these headers that is present names the caller. Values are hashed.",
    )
    default: CallerDefaults = Field(default_factory=CallerDefaults, description="For callers not listed.")
    known: tuple[KnownCaller, ...] = Field(default=(), description="Callers with rules of their own.")


class Settings(Section):
    """A whole configuration: valid in itself, with every default filled in."""

    listen: Listen = Field(
        default="127.0.0.1:8080",
        validate_default=True,
        description="HOST:PORT of the data plane: agents' base URLs.",
    )
    admin: Admin = Field(default_factory=Admin, description="The control plane.")
    store: WhereCounted = Field(
        default="memory",
        validate_default=True,
        description=(
            "Where counts are kept: memory, of one process; or the URL of a Redis or Valkey, alone or in a "
            "mapping, whose counts all replicas and workers share."
        ),
    )
    priority: Priority = Field(default_factory=Priority, description="Classes of urgency.")
    callers: Callers = Field(default_factory=Callers, description="Who is charged.")
    runs: Runs = Field(default_factory=Runs, description="Which agent task a call belongs to.")
    drain_s: DurationOrZero = Field(
        default="30s",
        alias="drain",
        validate_default=True,
        description="How long running calls may finish at the end.",
    )
    peek_bytes: Size = Field(
        default="1MiB",
        alias="peek",
        validate_default=True,
        description="Largest body that is read before deciding.",
    )
    headers: Headers = Field(default_factory=Headers, description="Bounds of a request's head.")
    connections: CallerConnections = Field(
        default_factory=CallerConnections, description="Bounds of the callers' connections."
    )
    forwarded: Forwarded = Field(
        default_factory=Forwarded, description="Whose X-Forwarded headers are believed."
    )
    prices: Prices | None = Field(
        default=None,
        description=(
            "What models cost: for quotas and run_budgets in money, and for metrics. With prices, the bodies "
            "of calls that cost tokens are read for the model's name, and refused above `peek`."
        ),
    )
    upstreams: Annotated[dict[Name, Upstream], AtLeastOne()] = Field(
        description="What stands behind the proxy, by name.",
    )
    routes: Annotated[tuple[Route, ...], AtLeastOne()] = Field(description="What agents call.")
