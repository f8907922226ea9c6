"""One proxy, kept for many cases, between a scripted upstream and raw callers.

    async def test_…(bench):
        got = await bench.gets(b"HTTP/1.1 204 No Content\r\n\r\n")

A case gives the upstream its script; what the case before left open is gone by then. That the same proxy
lives through hundreds of broken answers is part of what is shown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from tests.kit.raw import Raw, connect
from tests.kit.running import Running, running
from tests.kit.scripted import OK, Heard, Peer, Scripted, answering, silent
from tests.kit.waiting import bounded, until

YAML = """
upstreams:
  up:
    url: {url}
    dialect: rest
    breaker: {breaker}
    retry_budget: off
{upstream}
routes:
  - name: up
    path: /
    upstream: up
{route}
"""

GET = b"GET /x HTTP/1.1\r\nhost: proxy\r\n\r\n"
HEAD = b"HEAD /x HTTP/1.1\r\nhost: proxy\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nhost: proxy\r\ncontent-length: 2\r\n\r\n{}"


def yaml_of(url: str, *, upstream: str = "", route: str = "", top: str = "", breaker: str = "off") -> str:
    """The configuration: one upstream, one route to all of it, and nothing that refuses."""
    upstream, route = ("\n".join("    " + line for line in part.splitlines()) for part in (upstream, route))
    return top + YAML.format(url=url, upstream=upstream, route=route, breaker=breaker)


answering_ok = answering(OK)


@dataclass
class Got:
    """All that a caller was sent until its connection ended. `cut` by a reset."""

    raw: bytes
    cut: bool = False

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def head(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0] + b"\r\n"

    @property
    def body(self) -> bytes:
        """What follows the head, byte for byte."""
        return self.raw.partition(b"\r\n\r\n")[2]

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a header, in order."""
        fields = (line.partition(b": ") for line in self.head.split(b"\r\n")[1:])
        return [value for key, _, value in fields if key == name]

    @property
    def content(self) -> bytes:
        """The body, its chunk framing taken off as far as it came."""
        if not self.all(b"transfer-encoding"):
            return self.body
        rest, content = self.body, b""
        while size := int(rest.partition(b"\r\n")[0] or b"0", 16):
            piece = rest.partition(b"\r\n")[2]
            content, rest = content + piece[:size], piece[size + 2 :]
        return content

    @property
    def whole(self) -> bool:
        """Would a client take this for a complete answer? (RFC 9112 §8)"""
        if self.all(b"transfer-encoding"):
            return self.body.endswith(b"0\r\n\r\n")
        if length := self.all(b"content-length"):
            return len(self.body) == int(length[0])
        return not self.cut

    @property
    def reason(self) -> str:
        """Why the proxy said no, b"" when it did not."""
        return b"".join(self.all(b"x-backpressure-reason")).decode()


class Bench:
    """The proxy, its upstream, and what is asked of them."""

    def __init__(self, proxy: Running, upstream: Scripted) -> None:
        self.proxy = proxy
        self.upstream = upstream
        self.script: Callable[[Peer], Awaitable[None]] = silent

    def play(self, script: Callable[[Peer], Awaitable[None]]) -> None:
        """What the upstream does from now on, on every new connection; nothing is left of the case before."""
        for upstream in self.proxy.proxy._upstreams.values():
            upstream.abort()
        self.upstream.requests.clear()
        self.upstream.peers.clear()
        self.upstream.errors.clear()
        self.script = script

    def connect(self) -> AbstractAsyncContextManager[Raw]:
        """A caller's connection."""
        return connect(self.proxy.url)

    async def ask(self, request: bytes) -> Got:
        """Send this, and read to the end of the connection: the last request says `connection: close`."""
        async with self.connect() as raw:
            await raw.send(request)
            return await everything(raw)

    async def gets(self, answer: bytes, request: bytes = GET, *, then: str = "close") -> Got:
        """What becomes of an upstream's answer: the caller's bytes, when it asks once and then no more.

        `then`: the upstream goes on to `close` its connection well, `reset` it, or `wait`.
        """

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(answer)
            if then == "reset":
                peer.reset()
            elif then == "wait":
                await peer.left()

        self.play(script)
        return await self.ask(closing(request))

    async def serves(self) -> None:
        """The proxy is well: the next call gets its answer, and nothing of the last is left."""
        self.play(answering_ok)
        got = await self.ask(closing(POST))
        assert (got.status, got.body) == (200, b"ok")
        assert [heard.body for heard in self.upstream.requests] == [b"{}"]
        await until(lambda: self.in_flight == 0)

    @property
    def in_flight(self) -> int:
        """Permits that are held."""
        return sum(cap.in_flight for cap in self.proxy.proxy.state().caps)

    @property
    def kept(self) -> int:
        """Connections to the upstream that are kept for the next call."""
        [upstream] = self.proxy.proxy._upstreams.values()
        return upstream.pool.idle

    @property
    def heard(self) -> list[Heard]:
        """What reached the upstream."""
        return self.upstream.requests


async def everything(raw: Raw) -> Got:
    """All that comes until the end of the connection, whichever it is."""
    got = b""
    try:
        while piece := await bounded(raw.reader.read(1 << 20)):
            got += piece
    except ConnectionError:
        return Got(got, cut=True)
    return Got(got)


def closing(request: bytes) -> bytes:
    """The same request, and the last of its connection."""
    return request.replace(b"host: proxy\r\n", b"host: proxy\r\nconnection: close\r\n", 1)


@asynccontextmanager
async def bench_with(**yaml: str) -> AsyncIterator[Bench]:
    """A bench of one's own; `yaml` as for `yaml_of`."""
    bench: Bench

    async def script(peer: Peer) -> None:
        await bench.script(peer)

    async with (
        Scripted(script) as scripted,
        running(yaml_of(scripted.url, **yaml)) as proxy,
    ):
        bench = Bench(proxy, scripted)
        yield bench
        await until(lambda: bench.in_flight == 0)  # whatever the cases did, nothing is held
