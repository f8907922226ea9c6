"""`serve --workers N`: one port, several processes, and a parent that keeps them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from pathlib import Path

import httpx
import pytest

from proxy.demo import Behaviour, Hang, Ok, serve_demo
from proxy.workers import LONGEST_PAUSE_S, STEADY_S, pause_s
from tests.kit.process import BOUND_S, Process, ran, started, written
from tests.kit.running import CHAT, yaml_before

CHAT_PATH = "/openai/v1/chat/completions"
GOOD = yaml_before("http://127.0.0.1:9")
TWO = ("--workers", "2", "--counts-per-worker")


def client() -> httpx.AsyncClient:
    """Every call on a connection of its own, so that the kernel deals each one out anew."""
    return httpx.AsyncClient(timeout=BOUND_S, limits=httpx.Limits(max_keepalive_connections=0))


async def both(proxy: Process, event: str) -> list[dict[str, str]]:
    return [await proxy.until(event), await proxy.until(event)]


def children_of(proxy: Process) -> set[int]:
    """The workers' process ids; the parent has another child, which keeps its books."""
    parent = proxy._process.pid
    pids = map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return {pid for pid in pids if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()}


async def offered(line: dict[str, str]) -> float:
    """Calls that one worker has counted."""
    async with client() as http:
        text = (await http.get(f"http://{line['admin']}/metrics")).text
    return sum(map(float, re.findall(r"^backpressure_calls_offered_total\{.*\} (.*)$", text, re.MULTILINE)))


async def test_workers_need_a_store_that_they_share_and_the_refusal_says_why_and_what_to_do(tmp_path):
    code, out, err = await ran("serve", str(written(tmp_path, GOOD)), "--workers", "4")
    assert (code, out) == (2, "")
    for words in (
        "--workers 4",
        "`store: memory`",
        "4 times every cap",
        "write `store: redis://…`",
        "--workers 1",
        "--counts-per-worker",
    ):
        assert words in err
    assert "not built yet" not in err
    assert "Traceback" not in err


async def test_workers_with_a_store_that_they_share_need_no_leave(tmp_path):
    """The next check ends it, before anything is asked of that store."""
    file = tmp_path / "proxy.yaml"
    file.write_text(f"store: redis://127.0.0.1:1\nadmin: {{listen: '127.0.0.1:65535'}}\n{GOOD}")
    code, _, err = await ran("serve", str(file), "--workers", "2")
    assert code == 2
    assert "needs a store" not in err
    assert "admin.listen" in err


@pytest.mark.parametrize("number", ["0", "-1", "two"])
async def test_there_is_at_least_one_worker(tmp_path, number):
    code, _, err = await ran("serve", str(written(tmp_path, GOOD)), "--workers", number)
    assert code == 2
    assert "Traceback" not in err


@pytest.mark.parametrize(("listen", "admin"), [(9000, 8999), (9000, 65535)])
async def test_the_control_planes_ports_must_fit(tmp_path, listen, admin):
    file = tmp_path / "proxy.yaml"
    file.write_text(f"listen: 127.0.0.1:{listen}\nadmin: {{listen: '127.0.0.1:{admin}'}}\n{GOOD}")
    code, _, err = await ran("serve", str(file), *TWO)
    assert code == 2
    assert f"{admin} to {admin + 1}" in err
    assert "admin.listen" in err


@pytest.mark.slow
async def test_connections_are_dealt_out_counted_by_who_serves_them_and_all_workers_drain(tmp_path):
    async with serve_demo(Behaviour(latency_s=0.0)) as demo, client() as http:
        async with started("serve", str(written(tmp_path, yaml_before(demo.url))), *TWO) as proxy:
            lines = await both(proxy, "started")
            assert len({line["listen"] for line in lines}) == 1
            assert len({line["admin"] for line in lines}) == 2
            # 2 ** -31 is the chance that one of two workers gets all of 32 connections.
            url = f"http://{lines[0]['listen']}{CHAT_PATH}"
            answers = await asyncio.gather(*(http.post(url, json=CHAT) for _ in range(32)))
            assert {answer.status_code for answer in answers} == {200}
            counts = [await offered(line) for line in lines]
            assert sum(counts) == 32
            assert min(counts) > 0

            demo.upstream.behaviour.mode = Hang()
            running = asyncio.create_task(http.post(url, json=CHAT))
            await demo.upstream.ledger.until(lambda: demo.upstream.ledger.in_flight == 1)
            proxy.signal(signal.SIGTERM)
            await both(proxy, "draining")
            demo.upstream.behaviour.mode = Ok()
            assert (await running).status_code == 200
            code, err = await proxy.ended()
            assert code == 0
            assert f"data plane on http://{lines[0]['listen']}, control planes on http://" in err


@pytest.mark.slow
async def test_a_second_signal_cuts_what_still_runs(tmp_path):
    async with serve_demo(Behaviour(latency_s=0.0, mode=Hang())) as demo, client() as http:
        async with started("serve", str(written(tmp_path, yaml_before(demo.url))), *TWO) as proxy:
            line = (await both(proxy, "started"))[0]
            running = asyncio.create_task(http.post(f"http://{line['listen']}{CHAT_PATH}", json=CHAT))
            await demo.upstream.ledger.until(lambda: demo.upstream.ledger.in_flight == 1)
            # Else Ctrl-C would reach them twice, from the terminal and from their parent.
            assert all(os.getpgid(pid) == pid for pid in children_of(proxy))
            proxy.signal(signal.SIGINT)
            await both(proxy, "draining")
            proxy.signal(signal.SIGINT)
            with pytest.raises(httpx.TransportError):
                await running
            assert (await proxy.ended())[0] == 0


@pytest.mark.slow
async def test_a_worker_that_dies_is_replaced_and_the_other_serves_on(tmp_path):
    async with serve_demo(Behaviour(latency_s=0.0)) as demo, client() as http:
        async with started("serve", str(written(tmp_path, yaml_before(demo.url))), *TWO) as proxy:
            line = (await both(proxy, "started"))[0]
            before = children_of(proxy)
            killed = min(before)
            os.kill(killed, signal.SIGKILL)
            again = await proxy.until("started")
            assert again["listen"] == line["listen"]
            after = children_of(proxy)
            assert len(before) == len(after) == 2
            assert before - after == {killed}
            url = f"http://{line['listen']}{CHAT_PATH}"
            answers = await asyncio.gather(*(http.post(url, json=CHAT) for _ in range(8)))
            assert {answer.status_code for answer in answers} == {200}
            proxy.signal(signal.SIGTERM)
            code, err = await proxy.ended()
            assert code == 0
            assert "ended with code -9; the next starts in 0.1s" in err


@pytest.mark.slow
async def test_workers_follow_the_file_and_end_when_their_parent_is_gone(tmp_path):
    file = written(tmp_path, GOOD)
    async with started("serve", str(file), *TWO) as proxy:
        await both(proxy, "started")
        written(tmp_path, yaml_before("http://127.0.0.1:9", top="drain: 1s"))
        proxy.signal(signal.SIGHUP)
        await both(proxy, "reloaded")
        proxy.signal(signal.SIGKILL)
        await both(proxy, "stopped")


@pytest.mark.slow
async def test_a_worker_that_cannot_start_ends_them_all(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = tmp_path / "proxy.yaml"
        file.write_text(f"listen: 127.0.0.1:0\nadmin: {{listen: '127.0.0.1:{port - 1}'}}\n{GOOD}")
        code, _, err = await ran("serve", str(file), *TWO)
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{port} (admin.listen)" in err
    assert "a worker did not start (exit code 1)" in err
    assert "the next starts" not in err
    assert "Traceback" not in err


async def test_a_port_that_another_program_would_share_is_refused(tmp_path):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        file = tmp_path / "proxy.yaml"
        file.write_text(
            f"listen: 127.0.0.1:{taken.getsockname()[1]}\nadmin: {{listen: '127.0.0.1:0'}}\n{GOOD}"
        )
        code, _, err = await ran("serve", str(file), *TWO)
    assert code == 1
    assert "another program listens there" in err


def test_a_worker_that_keeps_dying_is_replaced_later_and_later_up_to_a_bound():
    assert [pause_s([0.0] * deaths) for deaths in range(1, 5)] == [0.1, 0.2, 0.4, 0.8]
    assert pause_s([0.0] * 1000) == LONGEST_PAUSE_S


def test_one_that_lived_long_is_replaced_at_once():
    assert pause_s([0.0, 0.0, STEADY_S]) == 0.0
    assert pause_s([0.0, 0.0, STEADY_S, 0.0]) == 0.1
