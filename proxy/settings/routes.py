"""`routes:` the prefixes that agents call, and what each call there may use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from proxy.settings.advise import Advise, Model
from proxy.settings.breakers import BreakerSection
from proxy.settings.concurrency import Concurrency
from proxy.settings.retries import Retries
from proxy.settings.section import OFF, ON, OptIn, Section
from proxy.settings.units import BucketRate, Burst, Duration, QuotaWindow, Size
from proxy.settings.words import (
    Name,
    RoutePath,
    StopStatus,
    Switch,
    Text,
    ToolName,
    Whole,
    WholeOrZero,
    one_of,
    some_ratio,
)

NEVER = 1.01
"""The pressure from which a class that is never shed is shed: above the highest there is."""

DRY_RUN = "false: dry run. Counted as if it were enforced; who would be refused goes on, and is logged."


def pressure(value: object) -> float:
    """The pressure (0 to 1) from which a class is shed; `never` is above the highest there is."""
    return NEVER if value == "never" else some_ratio(value)


Per = Annotated[
    Literal["caller", "run", "route", "upstream", "tool", "model"],
    BeforeValidator(one_of("caller", "run", "route", "upstream", "tool", "model")),
]
ToolPer = Annotated[Literal["caller", "run", "tool"], BeforeValidator(one_of("caller", "run", "tool"))]
RefuseAs = Annotated[Literal["result", "error", "http"], BeforeValidator(one_of("result", "error", "http"))]
Codex = Annotated[
    Literal["auto", "off", "on"],
    BeforeValidator(one_of("auto", "off", "on", said={True: "on", False: "off"})),
    WithJsonSchema({"enum": ["auto", *OFF, *ON]}),
]
OnStoreFailure = Annotated[
    Literal["share", "refuse", "open"], BeforeValidator(one_of("share", "refuse", "open"))
]
Pressure = Annotated[
    float,
    BeforeValidator(pressure),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 1}, {"const": "never"}]}),
]


class Bucket(Section):
    """An allowance per time, with room for a burst."""

    rate: BucketRate = Field(
        description=(
            "The average, such as 500 requests/minute or 1 request/3s. Where the dialect knows tokens "
            "(openai, anthropic, gemini) also 200k tokens/minute, or input tokens and output tokens apart, "
            "as Anthropic limits them (what is read from its cache counts to neither): estimated when a "
            "call comes, then corrected by its answer."
        ),
        examples=["500 requests/minute", "200k tokens/minute", "80k output tokens/minute"],
    )
    burst: Burst | None = Field(
        default=None,
        description=(
            "Requests, or tokens, at once after a pause. Default: one second of the rate, at least 1. Of "
            "tokens all that the rate states, since a call that costs more than the burst can never pass."
        ),
    )
    per: Per = Field(
        default="route",
        description=(
            "One count for each caller, run or tool, for the route, or for the upstream: the provider's own "
            "allowance, shared by all routes that state it. Or for each model that bodies name (with gemini "
            "paths), which are then read before a call is decided, and refused above `peek`."
        ),
    )
    enforce: Switch = Field(default=True, description=DRY_RUN)


class ToolBucket(Section):
    """An allowance per time of one tool."""

    rate: BucketRate = Field(description="The average.", examples=["10 requests/hour"])
    burst: Burst | None = Field(default=None, description="Requests at once after a pause.")
    per: ToolPer = Field(
        default="tool", description="One count for the tool, or for each caller or run of it."
    )
    enforce: Switch = Field(default=True, description=DRY_RUN)


class Quota(Section):
    """An allowance per long window, counted from its first call."""

    allow: QuotaWindow = Field(
        description=(
            "Such as 10000 requests/day. Where the dialect knows tokens also 5M tokens/day, or input tokens "
            "and output tokens apart, and with prices 10 USD/day: reserved by estimate when a call comes, "
            "then corrected by its answer."
        ),
        examples=["10000 requests/day", "5M tokens/day", "1M output tokens/day"],
    )
    per: Per = Field(default="route", description="Whose allowance it is, as for buckets.")
    enforce: Switch = Field(default=True, description=DRY_RUN)


class Queue(Section):
    """Where calls wait for room: bounded in number, in time and in bytes."""

    size: WholeOrZero = Field(default=200, description="Calls that may wait; 0: none, refuse at once.")
    max_age_s: Duration = Field(
        default="10s", alias="max_age", validate_default=True, description="No call waits longer than this."
    )
    max_bytes: Size = Field(
        default="64MiB",
        validate_default=True,
        description=(
            "Of bodies that waiting calls keep in memory, each counted up to 1MiB, beyond which a body is "
            "not read before it is sent. One call may always wait. 64MiB as NATS holds for a slow client "
            "(max_pending)."
        ),
    )
    enforce: Switch = Field(
        default=True,
        description=(
            "false: dry run. Nobody waits, as with a size of 0: who finds no room is refused at once; who "
            "would have waited is counted and logged."
        ),
    )


class Rung(Section):
    """A cheaper answer: another model, another upstream of the same dialect, or both."""

    model: Model | None = Field(default=None, description="Ask for this model.", examples=["gpt-4o-mini"])
    upstream: Text | None = Field(default=None, description="Ask this upstream.", examples=["azure"])


class ToolQueue(Section):
    """Where calls of one tool wait for room: places of its own, so that it takes none of the others."""

    size: Whole = Field(
        default=20,
        description=(
            "Calls of this tool that may wait. A tenth of a route's: one tool among several, each of which "
            "has as many."
        ),
    )
    max_age_s: Duration = Field(
        default="10s", alias="max_age", validate_default=True, description="None waits longer than this."
    )
    max_bytes: Size = Field(
        default="4MiB",
        validate_default=True,
        description=(
            "Of bodies that they keep in memory, counted as for a route's queue: half a gigabyte for as many "
            'tools as "*" tells apart.'
        ),
    )


class Tool(Section):
    """What holds for one tool, besides what holds for its route."""

    concurrency: Concurrency | None = Field(default=None, description="Calls of this tool in flight at once.")
    buckets: tuple[ToolBucket, ...] = Field(default=(), description="Allowances per time.")
    queue: ToolQueue | None = Field(
        default=None,
        description=(
            "Where its calls wait, in place of the route's queue. Unless stated they wait there, and a slow "
            "tool may take all of its places."
        ),
    )
    breaker: OptIn[BreakerSection] = Field(
        default=None,
        description=(
            "Refuses its calls at once while the tool is down, in place of the upstream's, which then learns "
            "nothing from its failures. Off unless stated: they count to the upstream's breaker."
        ),
        examples=[{"minimum_calls": 5}],
    )


class Mcp(Section):
    """How an MCP route refuses."""

    refuse_as: RefuseAs = Field(
        default="result",
        description=(
            "result: a tool result that the model reads (isError). error: a JSON-RPC error. http: a status."
        ),
    )


class Route(Section):
    """One prefix that agents use as their base URL."""

    name: Name = Field(description="Names the route in metrics, headers and logs.", examples=["chat"])
    path: RoutePath = Field(
        description=(
            "Prefix, stripped before forwarding. A last segment `{tool}` stands for any that names a tool: "
            "what is before it is stripped, the tool and the rest go on."
        ),
        examples=["/openai/"],
    )
    upstream: Text = Field(description="One of upstreams.", examples=["openai"])
    buckets: tuple[Bucket, ...] = Field(
        default=(), description="Allowances per time; a call needs room in all."
    )
    quotas: tuple[Quota, ...] = Field(
        default=(), description="Allowances per hour or day; a call needs room in all."
    )
    concurrency: Concurrency | None = Field(
        default=None, description="Calls of this route in flight at once."
    )
    queue: Queue = Field(default_factory=Queue, description="Where calls wait for room.")
    shed: dict[Text, Pressure] = Field(
        default_factory=dict,
        description=(
            "Class: pressure from 0 to 1 (how full or old the queue is) from which its calls are refused, or "
            "never. Default: the first class never, the last from 0.5, the others between."
        ),
        examples=[{"background": 0.5}],
    )
    retries: OptIn[Retries] = Field(
        default=None,
        description=(
            "Sends a call that failed once more, before its caller has got a byte; paid for by the "
            "upstream's retry_budget. Off unless stated: the SDKs retry too, and layers of retries multiply."
        ),
        examples=[{"when": ["connect", 503]}],
    )
    fallback: tuple[Rung, ...] = Field(default=(), description="Cheaper answers, tried in this order.")
    advise: Advise | None = Field(
        default=None,
        description="What who is refused may be told to do instead, besides what the proxy knows by itself.",
        examples=[{"routes": ["azure"], "model": "gpt-4o-mini"}],
    )
    tools: dict[ToolName, Tool] = Field(
        default_factory=dict,
        description=(
            'By MCP tool name or {tool} segment; "*": each tool that is not named, by itself. Of a queue or '
            "breaker under it the first 128 tools have one each, and those beyond share one."
        ),
        examples=[{"*": {"concurrency": 8}}],
    )
    mcp: Mcp = Field(default_factory=Mcp, description="For routes to an MCP upstream.")
    on_store_failure: OnStoreFailure = Field(
        default="share",
        description=(
            "For calls while the shared store has been lost for longer than store.safe_for. share: go on as "
            "before, with everything divided by the replicas last seen. refuse: 503, store_down. open: each "
            "replica enforces the whole of it alone, as if there were no other. Envoy's failure_mode_deny "
            "knows refuse and letting all pass. No effect with memory."
        ),
    )
    codex_compatibility: Codex = Field(
        default="on",
        description=(
            "Refuses Codex CLI by an event of its stream (response.failed) in place of a 429 or 503, and by "
            "a 400 where it is not to return: so each of its releases waits as told and shows our words. "
            "Below 0.169 a 429 is fatal to it and a 503 costs 30 attempts; 0.169 heeds both, but hides the "
            "words. on: all; auto: releases below 0.169, and those that do not tell; off: none. For dialect "
            "openai."
        ),
    )
    stop_status: StopStatus = Field(
        default=400,
        description="Status of a refusal that is final: 400 ends the retries of every client measured.",
    )
