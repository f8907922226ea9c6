from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import httpx
import pytest
import uvloop

from proxy.demo import Behaviour, Cut, DemoUpstream, Ending, Running, serve_demo

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])


async def open_connection(running: Running):
    return await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))


@LOOPS
def test_the_end_closes_open_calls_and_leaves_nothing_in_the_loop(new_loop):
    async def story() -> None:
        async with serve_demo(Behaviour(slots=1, latency_s=36_000)) as running:
            ledger = running.upstream.ledger
            idle, served, waiting = [await open_connection(running) for _ in range(3)]
            for _, writer in (served, waiting):
                writer.write(b"GET /tools/weather HTTP/1.1\r\nhost: demo\r\n\r\n")
            idle[1].write(b"GET /v1/models HTTP/1.1\r\nhost: demo\r\n\r\n")
            await idle[0].readuntil(b"]")
            await ledger.until(lambda: ledger.in_flight == 2)
        assert ledger.ended[Ending.LEFT] == 2
        assert running.upstream.slots.taken == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        for _, writer in (idle, served, waiting):
            writer.transport.abort()
        with pytest.raises(ConnectionRefusedError):
            await open_connection(running)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story())


@LOOPS
def test_a_cut_is_a_reset_on_either_loop(new_loop):
    async def story() -> None:
        async with serve_demo(Behaviour(latency_s=0, mode=Cut(), tool_bytes=1_000_000)) as running:
            reader, writer = await open_connection(running)
            writer.write(b"GET /tools/weather HTTP/1.1\r\nhost: demo\r\n\r\n")
            head = await reader.readuntil(b"padding")
            assert b"content-length: 10000" in head
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.transport.abort()
            assert running.upstream.ledger.entries[0].ending is Ending.CUT

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story())


async def test_a_connection_serves_many_calls_one_after_the_other(demo, http):
    for _ in range(5):
        await http.get("/tools/weather")
    async with httpx.AsyncClient() as other:
        await other.get(demo.url + "/tools/weather")
    assert demo.upstream.ledger.completed == 6


async def test_pipelined_calls_are_answered_in_order(bare):
    async with bare() as caller:
        for name in ("first", "second", "third"):
            caller.send("GET", f"/tools/{name}")
        for name in ("first", "second", "third"):
            await caller.reader.readuntil(f'"tool":"{name}"'.encode())


async def test_a_taken_port_is_an_error(demo):
    with pytest.raises(OSError, match="address already in use"):
        async with serve_demo(port=int(demo.url.rpartition(":")[2])):
            pass


async def test_congestion_stretches_the_service_time(demo, http):
    demo.upstream.behaviour.knee, demo.upstream.behaviour.latency_s = 1, 0.02
    await asyncio.gather(http.get("/tools/a"), http.get("/tools/b"))
    second = max(demo.upstream.ledger.entries, key=lambda entry: entry.started_at)
    # Two calls in flight at a knee of one: 3.33 times 20 ms. A timer may be late, but is never early.
    assert second.ended_at - second.started_at > 0.06


async def test_another_server_is_told_what_the_app_needs():
    with pytest.raises(RuntimeError, match="serve_demo"):
        await DemoUpstream()({"type": "http"}, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_its_url_serves_and_ends_cleanly(number):
    command = [sys.executable, "-m", "proxy.demo", "--port", "0", "--latency", "0", "--slots", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        url = running.stdout.readline().strip()
        assert httpx.get(url + "/_demo/capacity", trust_env=False).json()["slots"] == 3
        running.send_signal(number)
        rest, errors = running.communicate(timeout=60)
    assert (running.returncode, rest, errors) == (0, "", "")


@pytest.mark.slow
async def test_the_command_refuses_what_it_cannot_do(demo):
    port = demo.url.rpartition(":")[2]
    for options, said in (
        (["--slots", "0"], "slots: Expected `int` >= 1"),
        (["--port", port], "cannot listen"),
    ):
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy.demo", *options, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await running.communicate()
        assert running.returncode == 2
        assert said in errors.decode()
