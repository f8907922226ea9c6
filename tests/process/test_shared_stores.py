"""Two processes hold one set of limits together, through every kind of store that may be configured.

Each test runs with a Redis and with a Valkey.
"""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.crc import key_slot

from tests.kit.pair import ALLOWED, CAP, Pair, paired
from tests.kit.ports import dead_port
from tests.kit.process import started, written
from tests.kit.redis import (
    SERVICE,
    Papers,
    RedisServer,
    cluster_replica,
    move_slot,
    papers,
    redis_cluster,
    redis_sentinel,
    redis_server,
    speaks_tls,
    valkey,
)
from tests.kit.running import yaml_before

PASSWORD = "hunter2/@ü"
ENCODED = "hunter2%2F%40%C3%BC"
"""The same as it is written in a URL."""

DOCS = Path(__file__).parents[2] / "docs" / "replicas.md"
SLOT = key_slot(b"{backpressure}")

pytestmark = pytest.mark.slow


@pytest.fixture(params=["redis", "valkey"], autouse=True)
def scheme(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of the URLs. From here on servers of this kind are started."""
    if request.param == "valkey":
        monkeypatch.setenv("REDIS_SERVER", valkey())
    return str(request.param)


@pytest.fixture
def files(tmp_path: Path, scheme: str) -> Papers:
    """The certificates of servers and proxies."""
    if not speaks_tls():
        pytest.skip(f"this {scheme}-server was built without TLS")
    return papers(tmp_path)


@pytest.fixture
async def opened() -> AsyncIterator[AsyncExitStack]:
    """For servers that end with the test."""
    async with AsyncExitStack() as stack:
        yield stack


async def holds(pair: Pair, caller: str = "ann") -> None:
    """Both grant together what one would."""
    assert await pair.counted(caller, ALLOWED + 4) == {"200": ALLOWED, "bucket_empty": 4}
    assert await pair.most_at_once() == CAP


def rights(*more: str) -> list[str]:
    """The words after ACL SETUSER that the documentation gives, with our password."""
    (told,) = re.findall(r"`ACL SETUSER (backpressure .*?)`", DOCS.read_text())
    return [*told.replace(">PASSWORD", f">{PASSWORD}").split(), *more]


def owner_of(servers: list[RedisServer]) -> int:
    """Which of a cluster's masters has the slot of the counts, as `redis_cluster` deals them out."""
    return SLOT * len(servers) // 16384


async def test_a_user_with_the_rights_that_are_documented(scheme, tmp_path):
    async with redis_server() as server:
        await server.command("ACL", "SETUSER", *rights("+select"))
        url = f"{scheme}://backpressure:{ENCODED}@127.0.0.1:{server.port}/3"
        async with paired(tmp_path, f"{{url: '{url}', timeout: 2s}}", server) as pair:
            await holds(pair)
        assert (await server.info("keyspace")).keys() == {"db0", "db3"}  # db0 is ours


async def test_a_wrong_password_is_said_in_the_log_and_once_it_is_right_the_store_is_in_use(scheme, tmp_path):
    async with redis_server() as server:
        await server.command("ACL", "SETUSER", *rights(), "resetpass", ">another")
        store = f"store: {scheme}://backpressure:{ENCODED}@127.0.0.1:{server.port}\n"
        file = written(tmp_path, store + yaml_before("http://127.0.0.1:9", upstream="concurrency: 4"))
        async with started("serve", str(file)) as proxy:
            moved = await proxy.until("store_moved")
            assert (moved["old"], moved["new"], moved["level"]) == ("joining", "given_up", "error")
            assert f"127.0.0.1:{server.port}: wrong user or password (WRONGPASS)" in moved["detail"]
            await server.command("ACL", "SETUSER", *rights())
            assert (await proxy.until("store_moved"))["new"] == "learning"
            proxy.signal(signal.SIGTERM)
            code, err = await proxy.ended()
            assert code == 0
            for said in (err, *proxy.text):
                assert "Traceback" not in said
                assert "hunter2" not in said


async def test_tls_with_certificates_of_both_sides(scheme, tmp_path, files):
    async with redis_server(papers=files, password="hunter2") as server:
        url = f"{scheme}s://:hunter2@127.0.0.1:{server.port}"
        store = f"{{url: '{url}', ca: '{files.ca}', cert: '{files.pem}', key: '{files.pem}', timeout: 2s}}"
        async with paired(tmp_path, store, server) as pair:
            await holds(pair)


async def test_a_cluster_over_tls(scheme, tmp_path, files):
    async with redis_cluster(papers=files) as servers:
        url = f"{scheme}s+cluster://127.0.0.1:{servers[owner_of(servers) - 1].port}"
        store = f"{{url: '{url}', ca: '{files.ca}', cert: '{files.pem}', key: '{files.pem}', timeout: 2s}}"
        async with paired(tmp_path, store, servers[owner_of(servers)]) as pair:
            await holds(pair)


async def test_sentinels_over_tls(scheme, tmp_path, files):
    async with (
        redis_server(papers=files) as master,
        redis_server(papers=files, replica_of=master) as replica,
        redis_sentinel(master, replica) as sentinel,
    ):
        url = f"{scheme}s+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}/2"
        store = f"{{url: '{url}', ca: '{files.ca}', cert: '{files.pem}', key: '{files.pem}', timeout: 2s}}"
        async with paired(tmp_path, store, master) as pair:
            await holds(pair)


async def test_sentinels_and_the_master_dies(scheme, tmp_path):
    async with (
        redis_server(password=PASSWORD) as master,
        redis_server(password=PASSWORD, replica_of=master) as replica,
        redis_sentinel(master, replica) as sentinel,
    ):
        url = f"{scheme}+sentinel://:{ENCODED}@127.0.0.1:{dead_port()},127.0.0.1:{sentinel.port}/{SERVICE}"
        async with paired(tmp_path, f"{{url: '{url}', timeout: 2s}}", master) as pair:
            told = await pair.counted("ann", ALLOWED // 2)
            assert await pair.most_at_once() == CAP
            await master.kill()
            told += await pair.until_shared_anew("ann")
            told += await pair.counted("ann", ALLOWED)
            assert told.keys() <= {"200", "bucket_empty", "store_down"}
            assert ALLOWED // 2 <= told["200"] <= ALLOWED
            await holds(pair, "bob")
            assert b"master" in await replica.command("ROLE")


async def test_a_cluster_whose_slot_moves_and_whose_owner_dies(scheme, tmp_path, opened):
    servers = await opened.enter_async_context(redis_cluster())
    place = owner_of(servers)
    owner, heir, other = servers[place], servers[place - 1], servers[place - 2]
    for server in servers:
        await server.command("ACL", "SETUSER", *rights("+cluster|slots", "+asking"))
    spare = await opened.enter_async_context(cluster_replica(heir, servers))
    await spare.command("ACL", "SETUSER", *rights("+cluster|slots", "+asking"))
    hosts = f"127.0.0.1:{dead_port()},127.0.0.1:{other.port}"
    store = f"{{url: '{scheme}+cluster://backpressure:{ENCODED}@{hosts}', timeout: 2s}}"
    async with paired(tmp_path, store, owner) as pair:
        told = await pair.counted("ann", 3)
        assert await pair.most_at_once() == CAP
        await move_slot(SLOT, owner, heir)
        told += await pair.until_shared_anew("ann")
        assert await pair.most_at_once() == CAP
        await heir.kill()
        await spare.command("CLUSTER", "FAILOVER", "TAKEOVER")
        told += await pair.until_shared_anew("ann")
        told += await pair.counted("ann", ALLOWED)
        assert told.keys() <= {"200", "bucket_empty", "store_down"}
        assert 3 <= told["200"] <= ALLOWED
        await holds(pair, "bob")
