"""A whole proxy whose store answers, but with no counts: it is out of reach, in its words, and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from itertools import count

import httpx
import pytest
from redis.crc import key_slot
from redis.exceptions import ResponseError

from tests.kit.listening import Listening
from tests.kit.ports import dead_port
from tests.kit.raw import CHAT
from tests.kit.redis import RedisServer, pump, redis_cluster, redis_server, until
from tests.kit.running import Running, before_demo
from tests.kit.sharing import in_use_for_long, until_it_is
from tests.kit.waiting import bounded

OWN_SLOT, OTHER_SLOT = key_slot(b"{backpressure}"), key_slot(b"{other}")

BUCKET = "buckets: [{rate: 1000 requests/second, per: caller}]\nqueue: {size: 0}"

Trouble = Callable[[RedisServer], AbstractAsyncContextManager[None]]


def setting(name: str, bad: str | int, good: str | int) -> Trouble:
    """CONFIG SET."""

    @contextlib.asynccontextmanager
    async def trouble(server: RedisServer) -> AsyncIterator[None]:
        await server.command("CONFIG", "SET", name, bad)
        yield
        await server.command("CONFIG", "SET", name, good)

    return trouble


@contextlib.asynccontextmanager
async def demoted(server: RedisServer) -> AsyncIterator[None]:
    """It is made the replica of another, which is not to be reached."""
    await server.command("REPLICAOF", "127.0.0.1", dead_port())
    yield
    await server.command("REPLICAOF", "NO", "ONE")


@contextlib.asynccontextmanager
async def demoted_and_strict(server: RedisServer) -> AsyncIterator[None]:
    async with setting("replica-serve-stale-data", "no", "yes")(server), demoted(server):
        yield


@contextlib.asynccontextmanager
async def locked(server: RedisServer) -> AsyncIterator[None]:
    """All have to say a password that nobody has told them."""
    await server.command("CONFIG", "SET", "requirepass", "hunter2")
    server.password = "hunter2"
    await server.command("CLIENT", "KILL", "TYPE", "normal")
    yield
    await server.command("CONFIG", "SET", "requirepass", "")
    server.password = ""


@contextlib.asynccontextmanager
async def unsaved(server: RedisServer) -> AsyncIterator[None]:
    """It cannot save what it is to keep."""
    (server.folder / "dump.rdb").mkdir()
    await server.command("CONFIG", "SET", "save", "3600 1000")
    await server.command("BGSAVE")

    async def failed() -> bool:
        return (await server.info("persistence"))["rdb_last_bgsave_status"] == "err"

    await until(failed)
    yield
    await server.command("CONFIG", "SET", "save", "")


@contextlib.asynccontextmanager
async def busy(server: RedisServer) -> AsyncIterator[None]:
    """A script of somebody else does not end."""
    await server.command("CONFIG", "SET", "lua-time-limit", 1)
    endless = asyncio.create_task(server.command("EVAL", "while true do end", 0))

    async def refuses() -> bool:
        with suppress(ResponseError):
            await server.command("PING")
            return False
        return True

    await until(refuses)
    yield
    await server.command("SCRIPT", "KILL")
    with suppress(ResponseError):
        await bounded(endless)


def lacking(slot: int) -> Trouble:
    """A cluster in which nobody has a slot."""

    @contextlib.asynccontextmanager
    async def trouble(server: RedisServer) -> AsyncIterator[None]:
        await server.command("CLUSTER", "DELSLOTS", slot)
        yield
        await server.command("CLUSTER", "ADDSLOTS", slot)

    return trouble


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (demoted, "READONLY"),
        (demoted_and_strict, "MASTERDOWN"),
        (setting("min-replicas-to-write", 1, 0), "NOREPLICAS"),
        (setting("maxmemory", 1, 0), "OOM"),
        (locked, "NOAUTH"),
        (unsaved, "MISCONF"),
        (busy, "BUSY"),
    ],
    ids=["READONLY", "MASTERDOWN", "NOREPLICAS", "OOM", "NOAUTH", "MISCONF", "BUSY"],
)
async def test_a_redis_that_does_not_count_is_out_of_reach_and_is_back_when_it_does(
    trouble: Trouble, words: str
) -> None:
    async with redis_server() as server:
        await in_use_for_long(server)
        async with before_demo(route=BUCKET, top=f"store: {{url: '{server.url}', timeout: 2s}}") as proxy:
            await suffers(proxy, trouble(server), words)


class Front(Listening):
    """Before a Redis: passes everything on, but for the time when it answers every command by itself."""

    def __init__(self, server: RedisServer) -> None:
        super().__init__()
        self._far = server.port
        self._says = b""

    @contextlib.asynccontextmanager
    async def saying(self, words: str) -> AsyncIterator[None]:
        """Until the block ends these are its answer."""
        self._says = f"-{words}\r\n".encode()
        yield
        self._says = b""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._far)
        back = asyncio.create_task(pump(far_reader, writer))
        try:
            while asked := await reader.read(65536):
                if self._says:
                    writer.write(self._says * asked.count(b"*"))
                else:
                    far_writer.write(asked)
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            far_writer.transport.abort()


async def test_a_redis_that_still_loads_is_out_of_reach_until_it_has():
    async with redis_server() as server, Front(server) as front:
        await in_use_for_long(server)
        store = f"{{url: 'redis://127.0.0.1:{front.port}', timeout: 2s}}"
        async with before_demo(route=BUCKET, top=f"store: {store}") as proxy:
            trouble = front.saying("LOADING Redis is loading the dataset in memory")
            await suffers(proxy, trouble, "LOADING")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slot", "words"), [(OWN_SLOT, f"nobody in the cluster has slot {OWN_SLOT}"), (OTHER_SLOT, "CLUSTERDOWN")]
)
async def test_a_cluster_that_lacks_a_slot_is_out_of_reach_until_somebody_has_it(slot: int, words: str):
    async with redis_cluster(1) as (server,):
        await in_use_for_long(server)
        store = f"{{url: 'redis+cluster://127.0.0.1:{server.port}', timeout: 2s}}"
        async with before_demo(route=BUCKET, top=f"store: {store}") as proxy:
            await suffers(proxy, lacking(slot)(server), words)


async def suffers(proxy: Running, trouble: AbstractAsyncContextManager[None], words: str) -> None:
    await until_it_is(proxy, "shared")
    async with httpx.AsyncClient() as client:
        callers = count()

        async def answer() -> str:
            """Of a caller that nobody knows, so that the store is asked."""
            headers = {"x-caller-id": f"caller-{next(callers)}"}
            url = f"{proxy.url}/openai/v1/chat/completions"
            told = await client.post(url, content=CHAT, headers=headers)
            return told.headers.get("x-backpressure-reason", str(told.status_code))

        assert await answer() == "200"
        async with trouble:
            assert await answer() == "store_down"
            await until_it_is(proxy, "lost")
            why = (await proxy.state())["store"]["why"]
            assert re.match(r"redis://127\.0\.0\.1:\d+: (it asks for a password \()?" + words, why)
            assert await answer() == "store_down"
        await until_it_is(proxy, "shared")
        assert await answer() == "200"
    assert {line["event"] for line in proxy.lines()} == {"store_moved", "refused"}  # and nothing crashed
