"""The way to a shared Redis, against real servers: what a call costs, and what becomes of one that fails."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from proxy.stores.address import Address
from proxy.stores.redis import Link, StoreUnavailable
from tests.kit import tls, waiting
from tests.kit.listening import Listening
from tests.kit.ports import dead_port, stuck_port
from tests.kit.redis import SERVICE, RedisServer, TlsFront, redis_cluster, redis_sentinel, redis_server, until
from tests.kit.tls_by_hand import ByHand
from tests.kit.waiting import BOUND_S, bounded

COUNT = "return {redis.call('INCR', KEYS[1]), ARGV[1]}"
"""Says how often it ran, and for whom."""

PATIENT_S = BOUND_S
"""A limit that no healthy call reaches, on whatever machine."""

IMPATIENT_S = 0.05


def address(port: int, kind: str = "redis", **more: Any) -> Address:
    return Address(kind, (("127.0.0.1", port),), **{"timeout_s": PATIENT_S, **more})


@asynccontextmanager
async def linked(port: int, kind: str = "redis", script: str = COUNT, **more: Any) -> AsyncIterator[Link]:
    """A link, closed at the end of the block."""
    async with aclosing(Link(address(port, kind, **more), script)) as link:
        yield link


async def failure(link: Link, key: str = "{k}") -> str:
    """The words of a call that does not succeed."""
    with pytest.raises(StoreUnavailable) as raised:
        await bounded(link.call([key], ["lost"]))
    assert raised.value.__cause__ is None  # an error of redis-py could hold what ours leaves out
    return str(raised.value)


async def recovered(link: Link, word: str, key: str = "{k}") -> list[Any]:
    """The first reply after a trouble that is over or will be."""
    replies: list[list[Any]] = []

    async def answers() -> bool:
        try:
            replies.append(await link.call([key], [word]))
        except StoreUnavailable:
            return False
        return True

    await until(answers)
    return replies[0]


async def commands(server: RedisServer) -> dict[str, int]:
    """How often each command was run since the last RESETSTAT, our own questions left out."""
    stats = await server.info("commandstats")
    counts = {
        name.removeprefix("cmdstat_"): int(told.split(",")[0].removeprefix("calls="))
        for name, told in stats.items()
    }
    ours = ("client", "cluster", "config", "info")
    return {name: count for name, count in counts.items() if name.split("|")[0] not in ours}


IN_SCRIPT_6 = "-ERR Error running script (call to f_c2ab): @user_script:41: @user_script: 41: "
"""What Redis 6 says before the words of a command that failed in a script."""


class Saying(Listening):
    """A server that answers every command in the same words, and with none has hung up."""

    def __init__(self, words: bytes) -> None:
        super().__init__()
        self._words = words
        self.connections = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if not self._words:
            writer.write_eof()
        while asked := await reader.read(65536):
            if self._words:
                writer.write(self._words * asked.count(b"*"))


async def test_a_call_is_one_command():
    async with redis_server() as server, linked(server.port) as link:
        assert await link.call(["{k}"], ["first"]) == [1, b"first"]
        await server.command("CONFIG", "RESETSTAT")
        for number in range(2, 12):
            assert await link.call(["{k}"], [number]) == [number, str(number).encode()]
        assert await commands(server) == {"evalsha": 10, "incr": 10}


async def test_keys_and_arguments_arrive_as_they_are():
    script = "return {#KEYS, KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4]}"
    async with redis_server() as server, linked(server.port, script=script) as link:
        reply = await link.call(["{k}1", "{k}ü"], [b"\x00\r\n\xff", "ü", 7, 0.1])
        assert reply == [2, "{k}ü".encode(), b"\x00\r\n\xff", "ü".encode(), b"7", b"0.1"]


async def test_the_counts_are_in_the_database_that_was_named():
    async with redis_server() as server, linked(server.port, database=3) as link:
        await link.call(["{k}"], ["here"])
        assert (await server.info("keyspace")).keys() == {"db3"}


async def test_a_script_that_the_server_forgot_is_told_again_and_runs_once():
    async with redis_server() as server, linked(server.port) as link:
        await link.call(["{k}"], ["before"])
        await server.command("SCRIPT", "FLUSH")
        await server.command("CONFIG", "RESETSTAT")
        assert await link.call(["{k}"], ["after"]) == [2, b"after"]
        assert await link.call(["{k}"], ["again"]) == [3, b"again"]
        assert await commands(server) == {"evalsha": 2, "eval": 1, "incr": 2}


async def test_a_silent_server_is_not_waited_for_and_its_late_replies_are_nobodys():
    async with redis_server() as server, linked(server.port, timeout_s=IMPATIENT_S) as link:
        await recovered(link, "connected")
        for _ in range(2):  # on an open connection, then on one that opens
            server.pause()
            assert await failure(link) == f"redis://127.0.0.1:{server.port}: no answer in 50 ms"
            server.resume()
            assert (await recovered(link, "own"))[1] == b"own"


async def test_a_server_that_never_connects_is_not_waited_for():
    with stuck_port() as port:
        async with linked(port, timeout_s=IMPATIENT_S) as link:
            assert await failure(link) == f"redis://127.0.0.1:{port}: no answer in 50 ms"


@pytest.mark.parametrize("opened", [True, False])
async def test_a_cancelled_calls_reply_is_not_the_next_ones(opened: bool):
    async with redis_server() as server:
        for turns in range(12):
            async with linked(server.port) as link:
                if opened:
                    await link.call(["{k}"], ["before"])
                server.pause()
                call = asyncio.create_task(link.call(["{k}"], ["cancelled"]))
                for _ in range(turns):
                    await asyncio.sleep(0)
                assert call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await bounded(call)
                server.resume()
                assert (await link.call(["{k}"], ["own"]))[1] == b"own"


async def test_a_second_call_at_the_same_time_is_refused_and_does_the_first_no_harm():
    async with redis_server() as server, linked(server.port) as link:
        first = asyncio.create_task(link.call(["{k}"], ["first"]))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one task"):
            await link.call(["{k}"], ["second"])
        assert await bounded(first) == [1, b"first"]


async def test_a_closed_link_opens_again():
    async with redis_server() as server, linked(server.port) as link:
        await link.call(["{k}"], ["first"])
        await link.aclose()
        assert await link.call(["{k}"], ["second"]) == [2, b"second"]


async def test_a_server_that_is_gone_is_found_again_on_its_port():
    async with redis_server(persist=True) as server, linked(server.port) as link:
        await link.call(["{k}"], ["first"])
        await server.kill()
        assert await failure(link) == f"redis://127.0.0.1:{server.port}: connection refused"
        await server.start()
        assert await link.call(["{k}"], ["second"]) == [2, b"second"]


async def test_a_connection_that_ended_between_two_calls_costs_no_call():
    async with redis_server(persist=True) as server, linked(server.port) as link:
        await link.call(["{k}"], ["first"])
        await server.stop()
        await server.start()
        assert await link.call(["{k}"], ["second"]) == [2, b"second"]


async def test_a_refused_connection_is_said_so():
    port = dead_port()
    async with linked(port) as link:
        assert await failure(link) == f"redis://127.0.0.1:{port}: connection refused"


@pytest.mark.parametrize(
    ("given", "said"),
    [("hunter3", "wrong user or password (WRONGPASS)"), ("", "it asks for a password (NOAUTH)")],
)
async def test_a_wrong_password_is_said_so_and_never_said(given: str, said: str):
    async with redis_server(password="hunter2") as server:
        async with linked(server.port, password=given) as link:
            assert await failure(link) == f"redis://127.0.0.1:{server.port}: {said}"
        async with linked(server.port, password="hunter2") as link:
            assert await link.call(["{k}"], ["in"]) == [1, b"in"]


async def test_an_acl_that_forbids_the_script_is_said_so():
    async with redis_server() as server:
        await server.command("ACL", "SETUSER", "proxy", "on", ">hunter2", "+get", "+client", "+select", "~*")
        async with linked(server.port, username="proxy", password="hunter2", database=1) as link:
            assert "NOPERM" in await failure(link)


async def test_a_replica_does_not_count():
    async with (
        redis_server() as master,
        redis_server(replica_of=master) as replica,
        linked(replica.port) as link,
    ):
        assert await failure(link) == f"redis://127.0.0.1:{replica.port}: READONLY, a replica answers"
        await replica.command("REPLICAOF", "NO", "ONE")
        assert await link.call(["{k}"], ["now"]) == [1, b"now"]


async def test_a_full_memory_is_said_so():
    async with redis_server() as server, linked(server.port) as link:
        await link.call(["{k}"], ["before"])
        await server.command("CONFIG", "SET", "maxmemory", 1)
        assert "OOM " in await failure(link)
        await server.command("CONFIG", "SET", "maxmemory", 0)
        assert (await link.call(["{k}"], ["after"]))[1] == b"after"


async def test_an_error_of_the_script_is_said_in_its_words():
    async with (
        redis_server() as server,
        linked(server.port, script="error('a bucket without a rate')") as link,
    ):
        said = await failure(link)
        assert said.startswith(f"redis://127.0.0.1:{server.port}: ")
        assert "a bucket without a rate" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-LOADING Redis is loading", "LOADING Redis is loading"),
        ("-MASTERDOWN Link with MASTER is down", "MASTERDOWN Link with MASTER is down"),
        ("-CLUSTERDOWN The cluster is down", "CLUSTERDOWN The cluster is down"),
        ("-BUSY Redis is busy running a script", "BUSY Redis is busy running a script"),
        ("-MISCONF Redis is configured to save", "MISCONF Redis is configured to save"),
        ("-ERR max number of clients reached", "max number of clients reached"),
        ("-ERR script: @user_script: 1: -READONLY You can't write", "READONLY, a replica answers"),
        (IN_SCRIPT_6 + "-OOM command not allowed", "OOM command not allowed"),
        ("-ERR Protocol error: unauthenticated multibulk length", "it asks for a password (NOAUTH)"),
        ("-MOVED 1 127.0.0.1:{port}", "sent from node to node"),
        ("-MOVED 1 ?:{port}", "sent from node to node"),
        ("-MOVED 1 :{port}", "sent from node to node"),
        ("HTTP/1.1 400 Bad Request\r\n", "Protocol Error: b'HTTP/1.1 400 Bad Request'"),
        ("", "connection closed by the server"),
    ],
)
async def test_what_else_a_server_answers_is_said_in_a_line_and_not_asked_again(words: str, said: str):
    server = Saying(b"")
    async with server, linked(server.port) as link:
        server._words = words.format(port=server.port).encode() + b"\r\n" if words else b""
        assert await failure(link) == f"redis://127.0.0.1:{server.port}: {said}"
        assert server.connections == 1  # it is for the caller to try again
        await failure(link)
        assert server.connections == 2  # anew: what else might still come is not for this call


@pytest.mark.parametrize("secret", ["hunter2", "hunter2" * 40])
async def test_a_password_that_the_server_repeats_is_left_out(secret: str):
    async with (
        Saying(
            b"-ERR unknown command 'AUTH', with args beginning with: '%s'\r\n" % secret.encode()
        ) as server,
        linked(server.port, password=secret) as link,
    ):
        said = await failure(link)
        assert "AUTH" in said
        assert "hunter" not in said


async def test_a_name_that_nobody_knows_is_said_so():
    async with aclosing(
        Link(Address("redis", (("store.invalid", 6379),), timeout_s=PATIENT_S), COUNT)
    ) as link:
        assert await failure(link) == "redis://store.invalid:6379: name not found"


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("name", "trusted", "verify", "said"),
    [
        ("127.0.0.1", True, True, None),
        ("elsewhere", True, False, None),
        ("elsewhere", True, True, "certificate not accepted: "),
        ("127.0.0.1", False, True, "certificate not accepted: "),
    ],
)
async def test_tls_trusts_whom_it_was_told_to(
    authority: trustme.CA, ca: str, name: str, trusted: bool, verify: bool, said: str | None
):
    async with (
        redis_server(password="hunter2") as server,
        TlsFront(server, tls.server(authority, name)) as front,
    ):
        given = {"tls": True, "verify": verify, "ca": ca if trusted else "", "password": "hunter2"}
        async with linked(front.port, **given) as link:
            if said is None:
                assert await link.call(["{k}"], ["sealed"]) == [1, b"sealed"]
                assert await link.call(["{k}"], ["again"]) == [2, b"again"]
            else:
                assert (await failure(link)).startswith(f"rediss://127.0.0.1:{front.port}: {said}")


async def test_tls_with_a_certificate_of_ours(authority: trustme.CA, ca: str, tmp_path: Path):
    context = tls.server(authority, "127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    own = authority.issue_cert("proxy")
    pem = tmp_path / "own.pem"
    own.private_key_and_cert_chain_pem.write_to_path(str(pem))
    async with redis_server() as server, TlsFront(server, context) as front:
        async with linked(front.port, tls=True, ca=ca, cert=str(pem)) as link:
            assert await link.call(["{k}"], ["known"]) == [1, b"known"]
        async with linked(front.port, tls=True, ca=ca) as link:
            await failure(link)


class Deaf(Listening):
    """A TLS server that shakes hands and never says another word, not even a farewell."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self._by_hand = context
        self.shaken = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far = ByHand(self._by_hand)
        while not far.shaken:
            writer.write(far.shake(await reader.read(65536)))
        self.shaken.set()
        while await reader.read(65536):
            pass


async def test_a_silent_server_behind_tls_is_not_waited_for_to_say_farewell(authority: trustme.CA, ca: str):
    async with (
        Deaf(tls.server(authority, "127.0.0.1")) as server,
        linked(server.port, tls=True, ca=ca) as link,
    ):
        call = asyncio.create_task(link.call(["{k}"], ["cancelled"]))
        await bounded(server.shaken.wait())
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await bounded(call)
        await waiting.until(lambda: not server.open)


def test_a_file_that_cannot_be_used_is_said_when_the_link_is_made(tmp_path: Path):
    with pytest.raises(OSError, match="No such file"):
        Link(address(6379, tls=True, ca=str(tmp_path / "none.pem")), COUNT)


TAGS = {0: "{b}", 1: "{c}", 2: "{a}"}
"""A hash tag of each of three masters."""


@pytest.mark.slow
async def test_a_cluster_is_asked_where_each_key_lies():
    async with redis_cluster() as servers, linked(servers[0].port, "cluster") as link:
        for number, tag in TAGS.items():
            assert await link.call([f"{tag}1"], ["first"]) == [1, b"first"]
            assert await servers[number].command("GET", f"{tag}1") == b"1"
        for server in servers:
            await server.command("CONFIG", "RESETSTAT")
        for tag in TAGS.values():
            await link.call([f"{tag}1", f"{tag}2"], ["second"])
        for server in servers:
            assert await commands(server) == {"evalsha": 1, "incr": 1}


class Restless(Saying):
    """A node of a cluster in which one after the other owns all slots, and no command succeeds."""

    def __init__(self) -> None:
        super().__init__(b"-ERR no\r\n")
        self.owner = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while asked := await reader.read(65536):
            self.owner += b"SLOTS" in asked
            owner = b"*2\r\n$9\r\n127.0.0.%d\r\n:1\r\n" % self.owner
            slots = b"*1\r\n*3\r\n:0\r\n:16383\r\n" + owner
            writer.write(slots if b"SLOTS" in asked else self._words * asked.count(b"*"))


async def test_a_node_that_has_left_the_cluster_is_not_asked_for_the_way_again():
    async with Restless() as node, linked(node.port, "cluster") as link:
        for _ in range(8):
            assert "connection refused" in await failure(link)
            assert set(link._seeds) == {("127.0.0.1", node.port), (f"127.0.0.{node.owner}", 1)}


@pytest.mark.slow
async def test_a_slot_that_moves_is_followed():
    async with redis_cluster() as servers, linked(servers[0].port, "cluster") as link:
        await link.call(["{b}"], ["before"])
        ids = [(await server.command("CLUSTER", "MYID")).decode() for server in servers]
        slot = await servers[0].command("CLUSTER", "KEYSLOT", "{b}")
        await servers[1].command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        await servers[0].command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        await servers[0].command("MIGRATE", "127.0.0.1", servers[1].port, "{b}", 0, 5000)
        assert await link.call(["{b}"], ["on its way"]) == [2, b"on its way"]
        for server in (servers[1], servers[0], servers[2]):
            await server.command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        assert await link.call(["{b}"], ["moved"]) == [3, b"moved"]
        await servers[0].command("CONFIG", "RESETSTAT")
        assert await link.call(["{b}"], ["known"]) == [4, b"known"]
        assert not {"evalsha", "eval"} & (await commands(servers[0])).keys()


@pytest.mark.slow
async def test_a_node_that_is_gone_is_said_so_and_another_is_asked_for_the_way():
    async with redis_cluster() as servers, linked(servers[0].port, "cluster") as link:
        for tag in TAGS.values():
            await link.call([tag], ["before"])
        await servers[0].kill()
        for server in servers[1:]:
            await server.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
        said = await failure(link, TAGS[0])
        assert said == f"redis://127.0.0.1:{servers[0].port}: connection refused"
        assert (await recovered(link, "own", TAGS[1]))[1] == b"own"
        heir = await servers[1].command("CLUSTER", "MYID")
        slot = await servers[1].command("CLUSTER", "KEYSLOT", TAGS[0])
        for server in servers[1:]:
            await server.command("CLUSTER", "SETSLOT", slot, "NODE", heir)
        assert await recovered(link, "inherited", TAGS[0]) == [1, b"inherited"]


@pytest.mark.slow
async def test_a_new_master_is_found_through_the_sentinels():
    async with (
        redis_server(password="hunter2") as master,
        redis_server(replica_of=master, password="hunter2") as replica,
        redis_sentinel(master, replica) as sentinel,
    ):
        hosts = (("127.0.0.1", dead_port()), ("127.0.0.1", sentinel.port))
        told = Address("sentinel", hosts, service=SERVICE, password="hunter2", timeout_s=PATIENT_S)
        async with aclosing(Link(told, COUNT)) as link:
            assert await link.call(["{k}"], ["old"]) == [1, b"old"]
            await master.kill()
            said = await failure(link)
            assert said == f"redis://127.0.0.1:{master.port}: connection refused"
            assert (await recovered(link, "new"))[1] == b"new"
            assert await replica.command("GET", "{k}")


async def test_a_master_that_no_sentinel_knows_is_said_so():
    async with redis_server() as master, redis_sentinel(master) as sentinel:
        async with linked(sentinel.port, "sentinel", service="other") as link:
            said = await failure(link)
            assert said == (
                f"redis://127.0.0.1:{sentinel.port}: SENTINEL GET-MASTER-ADDR-BY-NAME other: nobody knows"
            )
