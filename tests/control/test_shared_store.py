"""A whole proxy and a real Redis: what the control plane shows when the store goes and comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from proxy.demo import Behaviour, Hang
from tests.kit.ports import dead_port
from tests.kit.redis import redis_server
from tests.kit.running import CHAT, Running, before_demo
from tests.kit.sharing import in_use_for_long, leaping, until_it_is
from tests.kit.waiting import until
from tests.telemetry.kit import Scrape

SHARED_CAP = "concurrency: 4"


async def ready(running: Running) -> tuple[int, Any]:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{running.control}/readyz")
    return answer.status_code, answer.json().get("why")


def moves(running: Running) -> list[tuple[str, str, str]]:
    lines = [line for line in running.lines() if line["event"] == "store_moved"]
    return [(line["old"], line["new"], line["level"]) for line in lines]


@pytest.mark.slow
async def test_the_store_goes_and_comes_back_and_it_is_never_silent() -> None:
    async with redis_server(password="hunter2") as redis:
        await in_use_for_long(redis)
        hanging = Behaviour(latency_s=0.0, mode=Hang())
        async with before_demo(hanging, upstream=SHARED_CAP, top=f"store: {redis.url}") as proxy:
            clock = leaping(proxy)
            await until_it_is(proxy, "shared")
            assert await ready(proxy) == (200, None)
            async with httpx.AsyncClient() as client:  # its permit is leased for as long as it is in flight
                calling = asyncio.create_task(
                    client.post(f"{proxy.url}/openai/v1/chat/completions", json=CHAT)
                )
                await until(lambda: proxy.upstream.ledger.in_flight == 1)
                state, metrics = await proxy.state(), await proxy.metrics()
                calling.cancel()
                await asyncio.gather(calling, return_exceptions=True)
            assert (state["banner"], state["store"]["phase"]) == ("", "shared")
            assert (state["store"]["kind"], state["store"]["replicas"]) == ("redis", 1)
            assert state["store"]["shown"] == f"redis://:***@127.0.0.1:{redis.port}/0"
            assert state["store"]["caps"] == 1
            (cap,) = [each for each in state["caps"] if each["key"] == "upstream:openai"]
            assert (cap["slots"], 1 <= cap["leased"] <= 4) == (4, True)
            seen = Scrape(metrics)
            assert seen.get("store_phase", phase="shared") == 1
            assert 1 <= seen.total("cap_leased", cap="upstream:openai") <= 4
            answered = seen.get("store_trips_total", result="answered")
            assert answered == seen.get("store_trip_seconds_count") >= 1
            assert seen.get("store_trips_total", result="missed") == 0

            await redis.stop()
            await until_it_is(proxy, "lost")
            state = await proxy.state()
            assert "is out of reach for" in state["banner"]
            assert f"redis://127.0.0.1:{redis.port}: " in state["store"]["why"]
            clock.leapt_s += 3.1  # every lease has ended
            await until_it_is(proxy, "alone")
            state = await proxy.state()
            assert "this replica enforces the whole of every limit, and in" in state["banner"]
            assert "hunter2" not in str(state)
            assert await ready(proxy) == (200, None)
            seen = Scrape(await proxy.metrics())
            assert (seen.get("store_phase", phase="alone"), seen.get("store_phase", phase="shared")) == (1, 0)
            assert seen.get("store_trips_total", result="missed") >= 2

            await redis.start()
            await until_it_is(proxy, "shared")
            assert (await proxy.state())["banner"] == ""
            seen = Scrape(await proxy.metrics())
            assert seen.get("store_moves_total", phase="shared") == 2
            assert seen.get("store_moves_total", phase="alone") == 1
        assert moves(proxy) == [
            ("joining", "shared", "info"),
            ("shared", "lost", "warning"),
            ("lost", "alone", "warning"),
            ("alone", "learning", "info"),
            ("learning", "shared", "info"),
        ]
        assert "hunter2" not in proxy.log.getvalue()


@pytest.mark.parametrize(
    ("on_store_failure", "answer"),
    [("open", (200, None)), ("share", (503, "the store was never reached"))],
)
async def test_a_store_that_is_not_there_at_the_start_is_one_line_and_no_more(
    on_store_failure: str, answer: tuple[int, str | None]
) -> None:
    port = dead_port()
    top, route = f"store: redis://127.0.0.1:{port}", f"on_store_failure: {on_store_failure}"
    async with before_demo(upstream=SHARED_CAP, route=route, top=top) as proxy:
        await until_it_is(proxy, "given_up")
        missed = proxy.proxy.state().store.missed
        await until(lambda: proxy.proxy.state().store.missed > missed)
        (line,) = [line for line in proxy.lines() if line["event"] == "store_moved"]
        assert (line["level"], line["old"], line["new"]) == ("error", "joining", "given_up")
        assert line["store"] == f"redis://127.0.0.1:{port}/0"
        assert line["detail"] == (
            f"redis://127.0.0.1:{port}: connection refused; never reached, so there is no share to go on with"
        )
        assert "was never reached" in (await proxy.state())["banner"]
        assert await ready(proxy) == answer


async def test_who_shares_no_store_shows_none() -> None:
    async with before_demo(upstream=SHARED_CAP) as proxy:
        state = await proxy.state()
        assert (state["store"], state["banner"]) == (None, "")
        assert {cap["leased"] for cap in state["caps"]} == {None}
        assert await ready(proxy) == (200, None)
        assert "store_" not in await proxy.metrics()
