"""What a run may have in all, through the whole proxy: also at two proxies, and over a reload."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import openai
import pytest

from proxy.demo import Behaviour, Hang, serve_demo
from proxy.run_names import AGENT, PARENT
from tests.app.watching import counted
from tests.kit.redis import redis_server
from tests.kit.running import Running, running
from tests.kit.scripted import Scripted, answering
from tests.kit.sharing import in_use_for_long, until_it_is
from tests.kit.waiting import bounded, until

PATH = "/api/v1/chat/completions"
PRICES = """
prices:
  currency: USD
  models:
    "*": {input: 1, output: 1}
    big-*: {input: 2.50, output: 10}
    big-free: {input: 0, output: 0}
"""


def yaml(url: str, budget: str, top: str = "", route: str = "", known: str = "[]") -> str:
    return (
        f"{top}\n"
        f"callers: {{default: {{run_budget: {budget}}}, known: {known}}}\n"
        f"upstreams: {{demo: {{url: '{url}', dialect: openai, concurrency: 1000, breaker: off}}}}\n"
        "routes:\n"
        f"  - {{name: api, path: /api, upstream: demo, queue: {{size: 200}}{route}}}\n"
    )


@asynccontextmanager
async def budgeted(
    budget: str, behaviour: Behaviour | None = None, **more: str
) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    async with serve_demo(behaviour or Behaviour(latency_s=0.0, slots=1000)) as demo:
        async with (
            running(yaml(demo.url, budget, **more)) as proxy,
            httpx.AsyncClient(base_url=proxy.url, timeout=60.0) as client,
        ):
            proxy.upstream = demo.upstream
            yield proxy, client


async def ask(
    client: httpx.AsyncClient, run: str = "r", model: str = "demo", **more: object
) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
    return await client.post(PATH, json=body, headers={"x-run-id": run} if run else {})


def told(answer: httpx.Response) -> str:
    return answer.headers.get("x-backpressure-reason", str(answer.status_code))


async def test_of_a_hundred_calls_at_once_as_many_as_the_budget_has_reach_the_upstream():
    async with budgeted("{calls: 50}", Behaviour(latency_s=0.02, slots=1000)) as (proxy, client):
        answers = await asyncio.gather(*(ask(client, user=str(number)) for number in range(100)))
        assert Counter(map(told, answers)) == {"200": 50, "run_budget_spent": 50}
        assert proxy.upstream.ledger.arrivals == 50
        refused = next(answer for answer in answers if answer.status_code == 400)
        assert refused.headers["x-backpressure-limit"] == "50 calls"
        assert refused.headers["x-should-retry"] == "false"
        assert "retry-after" not in refused.headers
        assert told(await ask(client, "another")) == "200"
        assert told(await ask(client, "")) == "200", "a call of no run has no budget"


async def test_the_real_sdk_is_told_once_and_in_words_that_its_model_can_act_on():
    async with budgeted("{calls: 1}") as (proxy, _):
        sdk = openai.AsyncOpenAI(
            base_url=f"{proxy.url}/api/v1", api_key="sk-test", default_headers={"x-run-id": "r"}
        )
        async with sdk:
            message = {"role": "user", "content": "hi"}
            await sdk.chat.completions.create(model="demo", messages=[message])
            with pytest.raises(openai.BadRequestError) as raised:
                await sdk.chat.completions.create(model="demo", messages=[message])
        assert "this run has made all the calls that it may make" in raised.value.message
        assert "Stop this run and report what you have." in raised.value.message
        assert raised.value.response.headers["x-backpressure-reason"] == "run_budget_spent"
        assert proxy.upstream.ledger.arrivals == 1
        refusals = [line for line in proxy.lines() if line["event"] == "refused"]
        assert len(refusals) == 1, "one attempt"


async def test_two_proxies_and_one_redis_let_as_many_through_together():
    async with redis_server() as redis, AsyncExitStack() as stack:
        await in_use_for_long(redis)
        demo = await stack.enter_async_context(serve_demo(Behaviour(latency_s=0.02, slots=1000)))
        text = yaml(demo.url, "{calls: 50, in_flight: 20}", f"store: redis://127.0.0.1:{redis.port}")
        pair = [await stack.enter_async_context(running(text)) for _ in range(2)]
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=each.url, timeout=60.0))
            for each in pair
        ]
        for each in pair:
            await until_it_is(each, "shared")
        answers = await asyncio.gather(*(ask(clients[number % 2], user=str(number)) for number in range(100)))
        assert Counter(map(told, answers)) == {"200": 50, "run_budget_spent": 50}
        assert demo.upstream.ledger.arrivals == 50
        assert demo.upstream.ledger.peak_in_flight <= 20
        assert {told(await ask(client)) for client in clients} == {"run_budget_spent"}


async def ask_as(agent: str, client: httpx.AsyncClient) -> httpx.Response:
    body = {"model": "demo", "messages": [{"role": "user", "content": agent}]}
    return await client.post(PATH, json=body, headers={"x-run-id": "r", AGENT.decode(): agent})


async def test_two_proxies_tell_each_other_of_agents_and_of_a_halt():
    async with redis_server() as redis, AsyncExitStack() as stack:
        demo = await stack.enter_async_context(serve_demo(Behaviour(latency_s=0.0, slots=1000)))
        text = yaml(demo.url, "{agents: 1, wall_time: 1h}", f"store: redis://127.0.0.1:{redis.port}")
        one, two = [await stack.enter_async_context(running(text)) for _ in range(2)]
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=each.url, timeout=60.0))
            for each in (one, two)
        ]
        for each in (one, two):
            await until_it_is(each, "shared")
        here, there = (each.proxy._gate.runs.budgets for each in (one, two))
        assert told(await ask_as("a", clients[0])) == "200"
        await until(lambda: there.records)
        (seen,), (record,) = there.records.values(), here.records.values()
        assert seen.began_at == pytest.approx(record.began_at, abs=5.0)
        assert told(await ask_as("b", clients[1])) == "run_budget_spent"
        assert told(await ask_as("a", clients[1])) == "200"
        (run,) = here.records
        one.proxy.halt(run)
        await until(lambda: there.halted)
        assert told(await ask_as("a", clients[1])) == "run_halted"


ANSWER = b'{"model": "big-one", "usage": {"prompt_tokens": 100, "completion_tokens": 20}, "choices": []}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)


async def test_what_one_proxy_used_of_a_runs_tokens_another_knows():
    """Reserved are some hundreds a call, used 120: what is not used is to be had at the other at once."""
    async with redis_server() as redis, AsyncExitStack() as stack:
        await in_use_for_long(redis)
        upstream = await stack.enter_async_context(Scripted(answering(HEAD + ANSWER)))
        text = yaml(upstream.url, "{tokens: 900}", f"store: redis://127.0.0.1:{redis.port}")
        pair = [await stack.enter_async_context(running(text)) for _ in range(2)]
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=each.url, timeout=60.0))
            for each in pair
        ]
        for each in pair:
            await until_it_is(each, "shared")
        answers = []
        for number in range(10):
            answers.append(told(await ask(clients[number % 2], max_tokens=200)))
            slices = [proxy.proxy._gate.store._quotas for proxy in pair]
            await until(lambda slices=slices: not any(q.held or q.debt for s in slices for q in s.values()))
        # A call asks for 220 or so, and 900 - 6 * 120 is less than that.
        assert answers == ["200"] * 6 + ["run_budget_spent"] * 4


def spent(text: str) -> float:
    rows = [line for line in text.splitlines() if line.startswith("backpressure_money_spent_total{")]
    assert len(rows) <= 1
    assert all('route="api"' in row and 'upstream="demo"' in row and 'currency="USD"' in row for row in rows)
    return sum(float(row.rpartition(" ")[2]) for row in rows)


async def test_money_is_reserved_by_the_price_of_the_model_and_trued_up_by_the_answer():
    async with Scripted(answering(HEAD + ANSWER)) as upstream:
        text = yaml(upstream.url, "{money: 0.002 USD}", PRICES)
        async with running(text) as proxy, httpx.AsyncClient(base_url=proxy.url) as client:
            # 100 tokens at 2.50 and 20 at 10, for a million: 450 millionths. A call reserves 280 or more.
            answers = [told(await ask(client, model="big-one", max_tokens=25)) for _ in range(6)]
            assert answers == ["200"] * 4 + ["run_budget_spent"] * 2
            assert spent(await proxy.metrics()) == pytest.approx(0.0018)
            assert told(await ask(client, model="big-free")) == "200", "what costs nothing goes on"
            refused = await ask(client, model="big-one", max_tokens=25)
            assert refused.headers["x-backpressure-limit"] == "0.002 USD"
            assert "money" in refused.json()["error"]["message"]
            assert told(await ask(client, "other", model="big-one", max_tokens=1000)) == "too_dear"


async def test_a_quota_in_tokens_those_of_one_way_alone_and_one_in_money():
    async with Scripted(answering(HEAD + ANSWER)) as upstream:
        for allowed, calls in (
            ("460 tokens/day", 3),
            ("160 output tokens/day", 4),  # 20 each, and there must be room for 100
            ("200 input tokens/day", 2),
            ("0.00046 USD/day", 3),
        ):
            quotas = f", quotas: [{{allow: {allowed}, per: caller}}]"
            text = yaml(upstream.url, "off", PRICES, quotas)
            async with running(text) as proxy, httpx.AsyncClient(base_url=proxy.url) as client:
                answers = [await ask(client, "", max_tokens=100) for _ in range(6)]
                assert [told(answer) for answer in answers] == ["200"] * calls + ["quota_spent"] * (6 - calls)
                assert answers[-1].headers["x-backpressure-limit"] == allowed
                assert 45 <= int(answers[-1].headers["retry-after"]) <= 55


async def test_a_model_without_a_price_is_counted_apart():
    prices = "prices: {currency: EUR, models: {other: {input: 1, output: 1}}}"
    async with budgeted("off", top=prices) as (proxy, client):
        assert told(await ask(client)) == "200"
        assert (await counted(proxy))["unpriced_calls_total"] == 1
        assert spent(await proxy.metrics()) == 0.0


async def test_a_reload_keeps_what_a_run_has_spent():
    async with budgeted("{calls: 2}") as (proxy, client):
        url = next(iter(proxy.proxy.settings.upstreams.values())).url
        assert [told(await ask(client)) for _ in range(2)] == ["200", "200"]
        proxy.reload(yaml(url, "{calls: 3, wall_time: 2h}"))
        assert [told(await ask(client)) for _ in range(2)] == ["200", "run_budget_spent"]
        known = "[{name: evals, key: secret, run_budget: off}]"
        proxy.reload(yaml(url, "{calls: 3}", known=known))
        assert told(await ask(client)) == "run_budget_spent"
        client.headers["authorization"] = "Bearer secret"
        assert [told(await ask(client)) for _ in range(5)] == ["200"] * 5


async def test_a_failed_call_is_one_call_and_gives_its_tokens_back():
    failing = b"HTTP/1.1 500 Oh\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    async with Scripted(answering(failing)) as upstream:
        text = yaml(upstream.url, "{calls: 3, tokens: 400}")
        async with running(text) as proxy, httpx.AsyncClient(base_url=proxy.url) as client:
            answers = [await ask(client, max_tokens=300, user=str(number)) for number in range(4)]
            assert [told(answer) for answer in answers] == ["500"] * 3 + ["run_budget_spent"]
            assert answers[-1].headers["x-backpressure-limit"] == "3 calls"


async def test_who_leaves_while_it_waits_has_spent_nothing():
    async with budgeted("{calls: 3, in_flight: 1}", Behaviour(latency_s=0.0, mode=Hang())) as (proxy, client):
        ledger = proxy.upstream.ledger
        held = asyncio.create_task(ask(client))
        await bounded(ledger.until(lambda: ledger.in_flight == 1))
        waits = asyncio.create_task(ask(client, user="2"))
        await until(lambda: proxy.proxy._gate.room.size == 1)
        waits.cancel()
        held.cancel()
        await asyncio.gather(waits, held, return_exceptions=True)
        await until(lambda: proxy.proxy._pipeline._running == 0)
        proxy.upstream.behaviour.mode = Behaviour().mode
        assert [told(await ask(client, user=str(number))) for number in range(3)] == [
            "200", "200", "run_budget_spent",
        ]  # fmt: skip


async def test_the_state_shows_the_runs_nearest_to_their_end_and_an_operator_can_halt_one():
    async with budgeted("{calls: 4, wall_time: 2h}") as (proxy, client):
        for run, calls in (("one", 1), ("three", 3)):
            for _ in range(calls):
                await ask(client, run)
        state = await proxy.state()
        assert state["runs_known"] == 2
        first, second = state["runs"]
        assert (first["budget"], first["used"], first["calls"]) == ("calls", 0.75, 3)
        assert (second["budget"], second["used"], second["calls"]) == ("calls", 0.25, 1)
        assert (await counted(proxy))["budgeted_runs"] == 2
        async with httpx.AsyncClient() as operator:
            answer = await operator.post(f"{proxy.control}/runs/{second['run']}/halt")
        assert answer.json() == {"halted": second["run"]}
        halted = await ask(client, "one")
        assert (halted.status_code, told(halted)) == (400, "run_halted")
        assert told(await ask(client, "three")) == "200"


async def test_in_dry_run_nobody_is_refused_and_it_is_counted():
    async with budgeted("{calls: 1, enforce: false}") as (proxy, client):
        assert [told(await ask(client)) for _ in range(3)] == ["200"] * 3
        assert (await counted(proxy))["calls_would_refuse_total"] == 2


SESSION = b"x-claude-code-session-id"


def claude(agent: str = "", parent: str = "", session: str = "s1") -> dict[str, str]:
    """What Claude Code sends of the task and of the agent that calls."""
    said = {SESSION.decode(): session, AGENT.decode(): agent, PARENT.decode(): parent}
    return {name: value for name, value in said.items() if value}


async def test_depth_and_number_of_agents_hold_by_what_claude_code_sends():
    async with budgeted("{depth: 2, agents: 3}") as (proxy, client):

        async def call(*who: str) -> str:
            message = {"role": "user", "content": " ".join(who)}
            answer = await client.post(
                PATH, json={"model": "demo", "messages": [message]}, headers=claude(*who)
            )
            limit = answer.headers.get("x-backpressure-limit", "")
            assert answer.status_code == (400 if limit else 200)
            return limit or "ok"

        assert await call() == "ok", "the agent that the run began with"
        assert await call("a") == "ok"
        assert await call("b", "a") == "ok"
        assert await call("c", "b") == "depth 2", "the third generation, by the parents seen"
        assert await call("d") == "ok"
        assert await call("e") == "3 agents"
        assert await call("e", "d") == "3 agents"
        assert [await call("a"), await call("b", "a"), await call("d")] == ["ok"] * 3, "who is known goes on"
        assert await call() == "ok"
        assert await call("e", "", "s2") == "ok", "another session is another run"
        assert proxy.upstream.ledger.arrivals == 9
        (refused,) = {line["reason"] for line in proxy.lines() if line["event"] == "refused"}
        assert refused == "run_budget_spent"
