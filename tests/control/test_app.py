"""The control plane, asked over HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics_parser

from proxy.control import control_app
from tests.control.conftest import Serve
from tests.telemetry.kit import BUSY, EMPTY, Scrape, Told

ALL = ["/", "/healthz", "/readyz", "/metrics", "/state"]
GUARDED = ["/", "/metrics", "/state", "/runs/ann/3fa9c1/halt", "/nothing", "/healthz/", "/readyz/x"]


async def test_healthz_says_alive_even_while_not_ready_and_with_a_token_set(serve: Serve) -> None:
    async with serve(token="t0ken", why_not="draining") as client:
        answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"alive": True})


async def test_readyz_says_ready_or_why_not(serve: Serve) -> None:
    async with serve() as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"ready": True})
    async with serve(token="t0ken", why_not="draining") as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"ready": False, "why": "draining"})


async def test_metrics_are_prometheus_text(serve: Serve) -> None:
    async with serve() as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert Scrape(answer.text).get("in_flight", cap="upstream:openai") == 7


async def test_metrics_are_openmetrics_for_a_scraper_that_asks(serve: Serve) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"  # as Prometheus sends it
    async with serve() as client:
        answer = await client.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert list(openmetrics_parser.text_string_to_metric_families(answer.text))


async def test_the_loop_turns_between_two_metrics_of_a_scrape(told: Told) -> None:
    turns = 0

    async def data_plane() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: dict[str, Any]) -> None:
        return None

    app = control_app(lambda: told.state, told.telemetry, lambda: None, None, "1.2.3", print)
    scope = {"type": "http", "method": "GET", "path": "/metrics", "query_string": b"", "headers": []}
    busy = asyncio.create_task(data_plane())
    try:
        await app(scope, receive, send)
    finally:
        busy.cancel()
    assert turns >= len(list(told.telemetry.registry.collect()))


async def test_the_state_is_the_gates_state_as_json(serve: Serve) -> None:
    async with serve() as client:
        answer = await client.get("/state")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == json.loads(json.dumps(dataclasses.asdict(BUSY)))


async def test_the_state_stays_json_when_a_number_is_infinite(serve: Serve, told: Told) -> None:
    breaker = dataclasses.replace(BUSY.breakers[0], next_probe_s=float("inf"))
    told.state = dataclasses.replace(EMPTY, breakers=(breaker,))
    async with serve() as client:
        assert (await client.get("/state")).json()["breakers"][0]["next_probe_s"] is None
        assert (
            'backpressure_breaker_next_probe_seconds{upstream="openai"} +Inf'
            in (await client.get("/metrics")).text
        )


async def test_the_index_lists_every_path_and_the_version(serve: Serve) -> None:
    async with serve() as client:
        index = (await client.get("/")).json()
        assert index["backpressure"] == "1.2.3"
        assert {(await client.get(path)).status_code for path in index["paths"]} == {200}


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Basic t0ken",
        "t0ken",
        "Bearer t0ken2",
        "Bearer t0",
        b"Bearer \xff\xfe",
    ],
)
async def test_a_stranger_gets_401_and_learns_nothing(
    serve: Serve, authorization: str | bytes | None
) -> None:
    headers = [] if authorization is None else [("authorization", authorization)]
    async with serve(token="t0ken") as client:
        for path in GUARDED:
            for method in ("GET", "HEAD", "POST"):
                answer = await client.request(method, path, headers=headers)  # type: ignore[arg-type]
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == 'Bearer realm="backpressure"'
                assert method == "HEAD" or list(answer.json()) == ["error"]


@pytest.mark.parametrize("authorization", ["Bearer t0kén", "bearer  t0kén"])
async def test_the_token_opens_every_path(serve: Serve, authorization: str) -> None:
    headers = [("authorization", authorization.encode())]
    async with serve(token="t0kén") as client:
        for path in ALL:
            assert (await client.get(path, headers=headers)).status_code == 200  # type: ignore[arg-type]


async def test_only_get_and_head_are_answered(serve: Serve) -> None:
    async with serve() as client:
        for path in ALL:
            head = await client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
                answer = await client.request(method, path)
                assert answer.status_code == 405
                assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


async def test_an_unknown_path_is_answered_in_json_with_those_that_exist(serve: Serve) -> None:
    async with serve() as client:
        answer = await client.get("/metric")
    assert (answer.status_code, answer.json()) == (404, {"error": "Not Found", "paths": ALL[1:]})


async def test_a_path_with_a_slash_too_many_is_a_wrong_path(serve: Serve) -> None:
    async with serve() as client:
        assert (await client.get("/state/")).status_code == 404


async def test_a_gate_that_cannot_be_read_leaves_healthz_alive_and_tells_nothing(
    serve: Serve, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(told, "state")
    async with serve() as client:
        for path in ("/state", "/metrics"):
            answer = await client.get(path)
            assert (answer.status_code, answer.text) == (500, "Internal Server Error")
        assert (await client.get("/healthz")).status_code == 200


async def test_nothing_may_be_stored_by_a_cache(serve: Serve) -> None:
    async with serve() as client:
        assert {(await client.get(path)).headers["cache-control"] for path in ALL} == {"no-store"}


async def test_a_run_is_halted_by_its_name_and_by_post_alone(serve: Serve, told: Told) -> None:
    async with serve() as client:
        answer = await client.post("/runs/ann/3fa9c1/halt")
        assert (answer.status_code, answer.json()) == (200, {"halted": "ann/3fa9c1"})
        assert (await client.get("/runs/ann/3fa9c1/halt")).status_code == 405
        assert (await client.post(f"/runs/{'x' * 129}/halt")).status_code == 400
    assert told.halted == ["ann/3fa9c1"]


async def test_no_stranger_halts_a_run(serve: Serve, told: Told) -> None:
    async with serve(token="t0ken") as client:
        assert (await client.post("/runs/ann/3fa9c1/halt")).status_code == 401
    assert told.halted == []
