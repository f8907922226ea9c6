"""What becomes of a stream when its proxy is told to stop: a real process, its signals, its exit code."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys

import pytest

from tests.kit.process import Process, started, written
from tests.kit.raw import connect, head
from tests.kit.scripted import Scripted
from tests.kit.waiting import bounded

EVENT = b"c\r\ndata: half\n\n\r\n"
REST = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + EVENT


class Streaming:
    """An upstream that begins a stream, and ends it when it `may_end`."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, peer) -> None:
        await peer.request()
        await peer.send(STREAM)
        gone = asyncio.create_task(peer.left())
        ending = asyncio.create_task(self.may_end.wait())
        try:
            await asyncio.wait((gone, ending), return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                self.left.set()
            else:
                await peer.send(REST)
        finally:
            for task in (gone, ending):
                task.cancel()
            await asyncio.gather(gone, ending, return_exceptions=True)


def file_for(folder, upstream, top=""):
    return written(
        folder,
        f"{top}\nupstreams: {{up: {{url: '{upstream.url}', dialect: openai}}}}\n"
        "routes: [{name: chat, path: /, upstream: up}]\n",
    )


async def begin(process: Process, raw) -> None:
    """The stream has begun, and its caller has the first event."""
    await raw.send(head("POST", "/v1/chat/completions", content_length="2") + b"{}")
    assert b"data: half" in await bounded(raw.reader.readuntil(b"half\n\n\r\n"))


async def test_a_stream_that_runs_at_sigterm_comes_whole_and_then_the_process_ends_well(tmp_path):
    script = Streaming()
    async with Scripted(script) as upstream, started("serve", str(file_for(tmp_path, upstream))) as process:
        url = f"http://{(await process.until('started'))['listen']}"
        async with connect(url) as raw, connect(url) as idle:
            assert (await idle.get("/", upgrade="websocket")).status == 501  # a kept connection
            await begin(process, raw)
            process.signal(signal.SIGTERM)
            await process.until("draining")
            script.may_end.set()
            rest = await bounded(raw.reader.read())
            assert rest.endswith(REST), "to its very end, and then the connection is closed"
            assert await idle.is_closed()
            code, err = await process.ended()
            assert (code, "Traceback" in err) == (0, False)


@pytest.mark.parametrize("how", ["a second signal", "the end of drain"])
async def test_a_stream_that_is_cut_at_the_end_does_not_look_complete_and_its_upstream_is_let_go(
    tmp_path, how
):
    script = Streaming()
    top = "drain: 30s" if how == "a second signal" else "drain: 100ms"
    async with (
        Scripted(script) as upstream,
        started("serve", str(file_for(tmp_path, upstream, top))) as process,
    ):
        url = f"http://{(await process.until('started'))['listen']}"
        async with connect(url) as raw:
            await begin(process, raw)
            process.signal(signal.SIGTERM)
            if how == "a second signal":
                await process.until("draining")
                process.signal(signal.SIGTERM)
            try:
                rest = await bounded(raw.reader.read())
            except ConnectionError:
                rest = b""
            assert not rest.endswith(b"0\r\n\r\n") or b'"error"' in rest, "no clean end that says nothing"
            code, err = await process.ended()
            assert (code, "Traceback" in err) == (0, False)
            await bounded(script.left.wait())


async def test_every_sighup_reads_the_file_again_also_when_it_has_not_changed(tmp_path):
    async with (
        Scripted(Streaming()) as upstream,
        started("serve", str(file_for(tmp_path, upstream))) as process,
    ):
        await process.until("started")
        file_for(tmp_path, upstream, "pritority: {}")
        first = await process.until("reload_failed")
        assert 'did you mean "priority"?' in first["detail"]
        process.signal(signal.SIGHUP)
        assert (await process.until("reload_failed"))["detail"] == first["detail"]
        process.signal(signal.SIGTERM)
        assert (await process.ended())[0] == 0


def is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
async def test_demo_prints_what_to_paste_shows_a_refusal_and_ends_at_ctrl_c():
    """The one command with ports of its own, for they are printed in the README."""
    if not all(map(is_free, (8080, 8081, 9000))):
        pytest.skip("another demo runs on this machine")
    async with started("demo") as process:
        line = await process.until("started")
        pasted = "\n".join(process.text)
        for said in (
            "OPENAI_BASE_URL=http://127.0.0.1:8080/openai/v1",
            "ANTHROPIC_BASE_URL=",
            "/mcp",
            "curl",
        ):
            assert said in pasted
        async with connect(f"http://{line['listen']}") as raw:
            statuses = [(await raw.get(f"/tools/report?call={number}")).status for number in (1, 2)]
            assert statuses == [200, 429]
        process.signal(signal.SIGINT)
        code, err = await process.ended()
        assert (code, "Traceback" in err) == (0, False)
