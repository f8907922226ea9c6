"""10,000 mutations of requests: the proxy answers or ends each, and leaks nothing.

Which bytes they are is fixed by the number of the case. Bounds in time are short, so that the proxy itself
ends what a mutation leaves unfinished.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio

from tests.kit.bench import Bench, answering_ok, bench_with, everything
from tests.kit.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.conformance("abuse")]

CASES: Final = 40
INPUTS: Final = 250
AT_A_TIME: Final = 50

TOP = (
    "connections: {keep_alive: 40ms, head_within: 40ms, body_window: 40ms, body_per_second: 10KiB}\n"
    "headers: {max_size: 4KiB, max_url: 1KiB, max_count: 20}\n"
)

REQUESTS: Final = [
    b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET http://a/x?y=z HTTP/1.1\r\nhost: a\r\naccept: */*\r\nx-deadline-ms: 500\r\n\r\n",
    b"HEAD /x HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    b"OPTIONS /x HTTP/1.1\r\nHost: a\r\nConnection: x-a, close\r\nX-A: b\r\n\r\n",
    b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\nexpect: 100-continue\r\n\r\nhello world",
    b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\n",
    b"POST /x HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\n{}",
    b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
]
TOKENS: Final = [
    b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"\t", b"\r\n\r\n", b"content-length: 3\r\n", b"0\r\n\r\n",
    b"transfer-encoding: chunked\r\n", b"HTTP/1.1", b"../", b"%00", b"\xff", b"ffffffffffffffff\r\n", b"-1",
    b"#", b"x" * 5000, b"connection: close\r\n", b"host: b\r\n",
]  # fmt: skip

LINE: Final = re.compile(rb"[A-Z_-]+ [!-\"$-~]+ HTTP/1\.1")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def hurried() -> AsyncIterator[Bench]:
    async with bench_with(top=TOP) as bench:
        yield bench


@pytest.mark.parametrize("seed", range(CASES))
async def test_whatever_arrives_the_proxy_lives_and_serves_the_next_call(hurried: Bench, seed: int):
    await hurried.serves()
    tasks = len(asyncio.all_tasks())
    chance = random.Random(seed)
    inputs = [mutated(chance) for _ in range(INPUTS)]
    hurried.play(answering_ok)
    for at in range(0, INPUTS, AT_A_TIME):
        await asyncio.gather(*(ended(hurried, data) for data in inputs[at : at + AT_A_TIME]))
    for heard in hurried.heard:
        assert LINE.fullmatch(heard.line), heard.line
        assert len(heard.all(b"content-length") + heard.all(b"transfer-encoding")) <= 1
        assert len(heard.all(b"host")) == 1
        assert heard.raw.count(b"\n") == heard.raw.count(b"\r\n") == heard.raw.count(b"\r")
    await hurried.serves()
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    assert "backpressure_crashes_total 0.0" in await hurried.proxy.metrics()


async def ended(bench: Bench, data: bytes) -> None:
    """Send, and wait until the proxy has ended the connection."""
    async with bench.connect() as raw:
        try:
            await raw.send(data)
        except ConnectionError:
            return
        got = await everything(raw)
        assert got.raw == b"" or got.raw.startswith(b"HTTP/1.1 ")


def mutated(chance: random.Random) -> bytes:
    """One to three requests, changed in one to six places."""
    data = bytearray(b"".join(chance.choices(REQUESTS, k=chance.randint(1, 3))))
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data) + 1)
        to = min(len(data), at + chance.randint(1, 20))
        match chance.randrange(6):
            case 0:
                data[at:to] = b""
            case 1:
                data[at:at] = chance.choice(TOKENS)
            case 2:
                data[at:to] = chance.choice(TOKENS)
            case 3:
                data[at:at] = data[at:to]
            case 4:
                data[at:to] = chance.randbytes(to - at)
            case _ if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
    return bytes(data)
