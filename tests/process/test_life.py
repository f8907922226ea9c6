"""Start, reload, drain and end of a real process."""

from __future__ import annotations

import asyncio
import re
import signal

import httpx
import pytest

from proxy.demo import Behaviour, Hang, Ok, serve_demo
from tests.kit.process import BOUND_S, started, written
from tests.kit.running import CHAT, yaml_before

CHAT_PATH = "/openai/v1/chat/completions"


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=BOUND_S)


async def test_sigterm_drains_new_calls_get_503_a_running_one_finishes_and_the_exit_is_clean(tmp_path):
    async with serve_demo(Behaviour(latency_s=0.0, mode=Hang())) as demo, client() as http:
        async with started("serve", str(written(tmp_path, yaml_before(demo.url)))) as proxy:
            line = await proxy.until("started")
            data, control = f"http://{line['listen']}", f"http://{line['admin']}"
            running = asyncio.create_task(http.post(data + CHAT_PATH, json=CHAT))
            await demo.upstream.ledger.until(lambda: demo.upstream.ledger.in_flight == 1)
            proxy.signal(signal.SIGTERM)
            await proxy.until("draining")

            refused = await http.post(data + CHAT_PATH, json=CHAT)
            assert refused.status_code == 503
            assert refused.headers["x-backpressure-reason"] == "draining"
            assert 1 <= int(refused.headers["retry-after"]) <= 5
            ready = await http.get(control + "/readyz")
            assert (ready.status_code, "draining" in ready.text) == (503, True)
            assert (await http.get(control + "/healthz")).status_code == 200

            demo.upstream.behaviour.mode = Ok()
            assert (await running).status_code == 200
            assert (await proxy.ended())[0] == 0


@pytest.mark.parametrize("drain", ["30s", "0s"])
async def test_a_second_signal_or_the_end_of_the_time_cuts_what_still_runs(tmp_path, drain):
    async with serve_demo(Behaviour(latency_s=0.0, mode=Hang())) as demo, client() as http:
        yaml = yaml_before(demo.url, top=f"drain: {drain}")
        async with started("serve", str(written(tmp_path, yaml))) as proxy:
            line = await proxy.until("started")
            running = asyncio.create_task(http.post(f"http://{line['listen']}{CHAT_PATH}", json=CHAT))
            await demo.upstream.ledger.until(lambda: demo.upstream.ledger.in_flight == 1)
            proxy.signal(signal.SIGINT)
            if drain == "30s":
                await proxy.until("draining")
                proxy.signal(signal.SIGINT)
            with pytest.raises(httpx.TransportError):
                await running
            assert (await proxy.ended())[0] == 0
            await demo.upstream.ledger.until(lambda: demo.upstream.ledger.in_flight == 0)


@pytest.mark.parametrize("by", ["SIGHUP", "the changed file alone"])
async def test_a_reload_follows_the_file_and_keeps_the_counts(tmp_path, by):
    async with serve_demo(Behaviour(latency_s=0.0)) as demo, client() as http:
        bucket = "buckets: [{{rate: 1 request/hour, burst: {burst}, per: caller}}]\nqueue: {{size: 0}}"
        file = written(tmp_path, yaml_before(demo.url, route=bucket.format(burst=1)))
        async with started("serve", str(file)) as proxy:
            line = await proxy.until("started")
            url = f"http://{line['listen']}{CHAT_PATH}"
            assert [(await http.post(url, json=CHAT)).status_code for _ in range(2)] == [200, 429]

            written(tmp_path, yaml_before(demo.url, route=bucket.format(burst=3)))
            if by == "SIGHUP":
                proxy.signal(signal.SIGHUP)
            await proxy.until("reloaded")
            # Three at once now, of which one was spent before the reload.
            assert [(await http.post(url, json=CHAT)).status_code for _ in range(3)] == [200, 200, 429]


async def test_a_bad_file_leaves_the_old_one_serving_and_says_where_it_is_wrong(tmp_path):
    async with serve_demo(Behaviour(latency_s=0.0)) as demo, client() as http:
        file = written(tmp_path, yaml_before(demo.url))
        async with started("serve", str(file)) as proxy:
            line = await proxy.until("started")
            written(tmp_path, yaml_before(demo.url).replace("dialect: rest", "dialect: klingon"))
            proxy.signal(signal.SIGHUP)
            failed = await proxy.until("reload_failed")
            assert f"{file}:" in failed["detail"]
            assert "dialect" in failed["detail"]
            answer = await http.post(f"http://{line['listen']}{CHAT_PATH}", json=CHAT)
            assert answer.status_code == 200
            metrics = (await http.get(f"http://{line['admin']}/metrics")).text
            assert re.search(r'backpressure_config_reloads_total{result="failed"} [12]\.0', metrics)


async def test_without_a_file_one_upstream_is_served(tmp_path):
    async with serve_demo(Behaviour(latency_s=0.0)) as demo, client() as http:
        ports = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
        async with started("serve", "--upstream", demo.url, *ports) as proxy:
            line = await proxy.until("started")
            answer = await http.post(f"http://{line['listen']}/v1/chat/completions", json=CHAT)
            assert answer.status_code == 200
            proxy.signal(signal.SIGTERM)
            assert (await proxy.ended())[0] == 0


async def test_a_reload_that_fails_in_whatever_way_does_not_end_the_next_one(tmp_path):
    async with serve_demo(Behaviour(latency_s=0.0)) as demo:
        file = written(tmp_path, yaml_before(demo.url))
        async with started("serve", str(file)) as proxy:
            await proxy.until("started")
            broken = tmp_path / "bad.pem"
            broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            written(tmp_path, yaml_before(demo.url, upstream="tls: {ca: bad.pem}"))
            proxy.signal(signal.SIGHUP)
            assert "bad.pem" in (await proxy.until("reload_failed"))["detail"]
            written(tmp_path, yaml_before(demo.url, top="drain: 1s"))
            proxy.signal(signal.SIGHUP)
            await proxy.until("reloaded")
