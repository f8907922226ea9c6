"""The columns of the table: what the proxy is made to do, for its real reasons, and what ends that.

A scene is set when the client's first call of a model or a tool arrives. Whoever comes back at the time told
finds the cause gone: `recover` runs when the first refusal goes out, before the client can have read it. So a
second "no" would be a promise broken.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from proxy.core.verdict import Reason
from proxy.demo import Behaviour, Ok, Outage
from proxy.demo.calling import ToolCall
from tests.app.watching import forward
from tests.clients.refusing import AT_ONCE, Crowd, crowded
from tests.clients.rows import WEATHER_CALL
from tests.kit.recording import Exchange, Recording
from tests.kit.running import BREAKER, Running, before_demo
from tests.kit.waiting import bounded

SENTENCE = "There is room for every call that waits its turn."
WORDS_IN_IT = 11
ONE_SLOT = "concurrency: 1"
HELD_S = 3600.0
SINCE_THE_RETRY_S = 58.0
"""Retries are counted over 61 s (core/retry_budget.py): so long ago, and the budget has room in 3 s."""

TASK = "task-1"


@dataclass
class Stage:
    """One scene while it is played: the client calls `seen`, behind which stands the proxy."""

    proxy: Running
    crowd: Crowd
    seen: Recording
    other: Running | None = None
    heard: Exchange | None = None
    is_set: bool = False
    refused: list[Exchange] = field(default_factory=list)

    @property
    def behaviour(self) -> Behaviour:
        return self.proxy.upstream.behaviour


async def nothing(_: Stage) -> None:
    """The client's call goes through."""


async def spend(stage: Stage) -> None:
    """Another caller takes what the bucket holds, if a greeting has not (the `HEAD /` of Claude Code)."""
    await stage.crowd.ask()


async def hold(stage: Stage) -> None:
    """Another caller's call is being served, and goes on for as long as it may."""
    stage.behaviour.latency_s = HELD_S
    ledger = stage.proxy.upstream.ledger
    before = ledger.in_flight
    stage.crowd.begin()
    await bounded(ledger.until(lambda: ledger.in_flight > before))


async def hold_and_wait(stage: Stage) -> None:
    """And a third one's call waits for it."""
    await hold(stage)
    await stage.crowd.wait(x_priority="background")


async def fail(stage: Stage) -> None:
    """The upstream fails until its breaker opens; then it is well again, which only a probe can find out."""
    stage.behaviour.mode = Outage()
    while {
        each.phase for each in stage.proxy.proxy.state().breakers if each.upstream == stage.crowd.dialect
    } == {"closed"}:
        await stage.crowd.ask()
    stage.behaviour.mode = Ok()


async def repeat(stage: Stage) -> None:
    """Another caller's retry takes what the retry budget holds, and then the client's call fails once.

    So what it sends next is a repeat, of which nothing but the body need tell.
    """
    (await stage.crowd.ask(x_stainless_retry_count="1")).raise_for_status()
    forward(stage.proxy, SINCE_THE_RETRY_S)
    if stage.heard is not None:
        stage.behaviour.mode = Outage()
        await stage.crowd.send(stage.heard)
        stage.behaviour.mode = Ok()


async def spend_run(stage: Stage) -> None:
    """The same caller's task has made the one call that it may make."""
    (await stage.crowd.ask(x_run_id=TASK)).raise_for_status()


async def leave(stage: Stage) -> None:
    """The proxy shuts down."""
    stage.proxy.proxy.drain()


def free(stage: Stage) -> None:
    """The other callers leave, and their places are free."""
    stage.behaviour.latency_s = 0.0
    for task in stage.crowd.tasks:
        task.cancel()


def replace(stage: Stage) -> None:
    """The load balancer sends what is new to the other instance."""
    stage.seen.turn_to(stage.other.url)


def stay(_: Stage) -> None:
    """Time alone heals it."""


@dataclass(frozen=True)
class Scene:
    """One column. Without a `reason` the call goes through."""

    name: str
    ask: str = "plain"
    reason: Reason | None = None
    route: str = ""
    upstream: str = ""
    top: str = ""
    prepare: Callable[[Stage], Awaitable[None]] = nothing
    recover: Callable[[Stage], None] = stay
    sends: tuple[tuple[str, str], ...] = ()
    has_other: bool = False


SCENES = (
    Scene("plain"),
    Scene("streamed", ask="streamed"),
    Scene("tool call", ask="tool"),
    Scene(
        "rate limited",
        reason=Reason.BUCKET_EMPTY,
        route=f"buckets: [{{rate: 1 request/3s, per: route}}]\n{AT_ONCE}",
        prepare=spend,
    ),
    Scene(
        "queue full",
        reason=Reason.QUEUE_FULL,
        route="queue: {size: 1}\nshed: {normal: never, background: never}",
        upstream=ONE_SLOT,
        prepare=hold_and_wait,
        recover=free,
        sends=(("x-priority", "background"),),
    ),
    Scene(
        "shed",
        reason=Reason.SHED,
        route="queue: {size: 2}",
        upstream=ONE_SLOT,
        prepare=hold_and_wait,
        recover=free,
        sends=(("x-priority", "background"),),
    ),
    Scene(
        "breaker open",
        reason=Reason.BREAKER_OPEN,
        route=AT_ONCE,
        upstream=f"breaker: {BREAKER.replace('open_for: 1s', 'open_for: 3s')}",
        prepare=fail,
    ),
    Scene(
        "retry budget spent",
        reason=Reason.RETRY_BUDGET_SPENT,
        route=AT_ONCE,
        upstream="retry_budget: {ratio: 0, floor: 1 per minute}",
        prepare=repeat,
        sends=(("x-stainless-retry-count", "1"),),
    ),
    Scene(
        "run budget spent",
        reason=Reason.RUN_BUDGET_SPENT,
        top="callers: {default: {run_budget: {calls: 1}}}",
        prepare=spend_run,
        sends=(("x-run-id", TASK),),
    ),
    Scene("draining", reason=Reason.DRAINING, prepare=leave, recover=replace, has_other=True),
)


@asynccontextmanager
async def staged(
    scene: Scene, dialect: str, heard: Exchange | None = None, calls: ToolCall = WEATHER_CALL
) -> AsyncIterator[Stage]:
    """The scene, for calls of this dialect. `heard` is such a call of the client's, from before. `calls` is
    the tool that the model calls where the scene is about tools.

    A session of tools opens before the scene is set: it is the calls of tools that are refused.
    """
    behaviour = Behaviour(latency_s=0.0, event_gap_s=0.0, stream_events=WORDS_IN_IT)
    behaviour.mcp_sse = scene.ask == "streamed"
    behaviour.calls = calls if scene.ask == "tool" else None
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        proxy = await enter(before_demo(behaviour, upstream=scene.upstream, route=scene.route, top=scene.top))
        seen = await enter(Recording(proxy.url))
        stage = Stage(proxy, await enter(crowded(proxy, dialect)), seen, heard=heard)
        if scene.has_other:
            stage.other = await enter(before_demo(behaviour))
        seen.asked, seen.answered = partial(_asked, scene, stage), partial(_answered, scene, stage)
        yield stage


async def _asked(scene: Scene, stage: Stage, exchange: Exchange) -> None:
    """A request is about to reach the proxy: the scene is set for the first that is work, however late."""
    if not stage.is_set and stage.crowd.dialect != "mcp" and exchange.method == "POST":
        stage.is_set = True
        await scene.prepare(stage)


async def _answered(scene: Scene, stage: Stage, exchange: Exchange) -> None:
    """An answer is about to reach the client."""
    if "x-backpressure-reason" in exchange.headers:
        stage.refused.append(exchange)
        if len(stage.refused) == 1:
            scene.recover(stage)
    elif not stage.is_set and b'"tools/list"' in exchange.body:
        stage.is_set = True
        await scene.prepare(stage)
