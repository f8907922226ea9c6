"""Connections to the upstream, seen from both sides of the whole proxy.

Kept as nginx and Envoy keep them: last used first, none of which the end has arrived, none too old. What
cannot be reached, or does not prove who it is, is a 502; what does not answer in its time is a 504.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from proxy.settings import parse
from proxy.upstream import dial
from tests.kit.bench import closing, everything
from tests.kit.outbound import Outbound
from tests.kit.ports import dead_port, stuck_port
from tests.kit.raw import CHAT, Raw, Reply, connect, head
from tests.kit.running import Running, running
from tests.kit.scripted import OK, Peer, Scripted, answering, saying
from tests.kit.scripted_h2 import ScriptedH2, Stream, slowly
from tests.kit.tls import server
from tests.kit.tls_by_hand import accept
from tests.kit.waiting import bounded, until

pytestmark = pytest.mark.conformance("pools")

BUSY = "breaker: off\nretry_budget: off\n"


def yaml(url: str, *lines: str) -> str:
    stated = "".join(f"    {line}\n" for line in (*BUSY.splitlines(), *lines))
    return (
        f"upstreams:\n  api:\n    url: {url}\n    dialect: rest\n{stated}"
        "routes: [{name: api, path: /, upstream: api}]\n"
    )


@asynccontextmanager
async def before(url: str, *lines: str) -> AsyncIterator[tuple[Running, Raw]]:
    """The proxy before `url`, with these lines in the upstream's settings, and a caller."""
    async with running(yaml(url, *lines)) as proxy, connect(proxy.url) as raw:
        yield proxy, raw


def count(proxy: Running) -> tuple[int, int, int]:
    pool = proxy.proxy._upstreams["api"].pool
    return pool.in_use, pool.idle, pool.dialling


def told(reply: Reply) -> tuple[int, str | None]:
    return reply.status, reply.headers.get("x-backpressure-reason")


def why(proxy: Running) -> list[str]:
    return [line["detail"] for line in proxy.lines() if line.get("detail")]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> Path:
    """A folder with ca.pem, and with our own certificate and its key."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    own = authority.issue_cert("proxy@example.test")
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "own.pem"))
    own.private_key_pem.write_to_path(str(tmp_path / "own.key"))
    return tmp_path


# ── kept connections ────────────────────────────────────────────────────────────────────────────────


async def test_a_connection_carries_one_call_after_the_other():
    async with Scripted(answering(OK)) as scripted, before(scripted.url) as (proxy, raw):
        for _ in range(3):
            assert (await raw.post("/")).status == 200
        assert count(proxy) == (0, 1, 0)
    assert (scripted.connections, len(scripted.requests)) == (1, 3)


async def test_a_connection_that_the_upstream_closed_costs_no_call():
    async with Scripted(saying(OK)) as scripted, before(scripted.url) as (proxy, raw):
        for sent in range(1, 4):
            assert (await raw.post("/")).status == 200
            assert len(scripted.requests) == sent
            await until(lambda: count(proxy) == (0, 0, 0))
    assert scripted.connections == 3


async def test_an_idle_connection_is_closed_by_us_first():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.left()
        closed.set()

    closed = asyncio.Event()
    async with (
        Scripted(script) as scripted,
        before(scripted.url, "connections: {idle_for: 20ms}") as (proxy, raw),
    ):
        await raw.post("/")
        await bounded(closed.wait())
        assert count(proxy) == (0, 0, 0)


async def test_the_idle_time_is_below_that_of_node_and_uvicorn_unless_stated():
    settings = parse(yaml("http://127.0.0.1:1"), "test.yaml", {})
    assert settings.upstreams["api"].connections.idle_for_s == 4.0 < 5.0
    assert settings.upstreams["api"].connections.max_age_s == 3600.0
    assert settings.upstreams["api"].connections.max is None


async def test_a_connection_that_is_old_carries_no_further_call():
    async with (
        Scripted(answering(OK)) as scripted,
        before(scripted.url, "connections: {max_age: 1ms}") as (_, raw),
    ):
        await raw.post("/")
        born = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() - born > 0.002)
        await raw.post("/")
    assert scripted.connections == 2


async def test_no_more_connections_than_may_be_and_no_call_that_is_admitted_finds_none():
    go_on = asyncio.Event()
    async with slowly(go_on, http2=False) as scripted:
        async with running(yaml(scripted.url, "concurrency: 2", "connections: {max: 2}")) as proxy:

            async def call() -> int:
                async with connect(proxy.url) as raw:
                    return (await raw.post("/")).status

            calls = [asyncio.create_task(call()) for _ in range(5)]
            await until(lambda: len(scripted.requests) == 2)
            assert proxy.proxy._upstreams["api"].pool.full
            go_on.set()
            assert await asyncio.gather(*calls) == [200] * 5
            assert count(proxy) == (0, 2, 0)
    assert scripted.connections == 2


async def test_connections_are_closed_at_the_end_of_a_drain():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.left()
        left.append(peer.number)

    left: list[int] = []
    async with Scripted(script) as scripted:
        async with before(scripted.url, "connections: {idle_for: 1h}") as (proxy, raw):
            await raw.post("/")
            proxy.proxy.drain()
            await bounded(proxy.proxy.idle())
            assert left == []
        await until(lambda: left == [0])


@pytest.mark.parametrize("http2", ["false", "true"])
async def test_a_reload_that_changes_the_way_closes_what_is_idle_and_lets_run_what_runs(http2: str):
    go_on = asyncio.Event()
    async with slowly(go_on, http2=http2 == "true") as old:
        async with Scripted(answering(OK)) as new:
            async with before(old.url, f"http2: {http2}") as (proxy, raw):
                running_call = asyncio.create_task(raw.post("/"))
                await until(lambda: old.connections == 1)
                proxy.reload(yaml(new.url))
                async with connect(proxy.url) as other:
                    assert (await other.post("/")).status == 200
                assert not running_call.done()
                go_on.set()
                assert (await bounded(running_call)).status == 200
                await until(lambda: not proxy.proxy._retired)
    assert len(new.requests) == 1


@pytest.mark.parametrize("changed", ["http2: true", "proxy: env", "connections: {max_age: 1m}"])
async def test_a_reload_that_changes_nothing_keeps_the_connections_and_any_other_does_not(changed: str):
    url = f"http://127.0.0.1:{dead_port()}"
    async with running(yaml(url)) as proxy:
        first = proxy.proxy._upstreams["api"]
        proxy.reload(yaml(url))
        assert proxy.proxy._upstreams["api"] is first
        proxy.reload(yaml(url, changed))
        assert proxy.proxy._upstreams["api"] is not first


# ── what cannot be reached ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("http2", ["false", "true"])
async def test_a_name_that_is_none(http2: str):
    async with before("http://nowhere.invalid", f"http2: {http2}") as (proxy, raw):
        assert told(await raw.post("/")) == (502, "upstream_failed")
        assert why(proxy) == ["name not resolved"]
        assert count(proxy) == (0, 0, 0)


@pytest.mark.parametrize("http2", ["false", "true"])
async def test_a_port_that_refuses(http2: str):
    async with before(f"http://127.0.0.1:{dead_port()}", f"http2: {http2}") as (proxy, raw):
        assert told(await raw.post("/")) == (502, "upstream_failed")
        assert why(proxy) == ["connection refused"]
        assert count(proxy) == (0, 0, 0)


@pytest.mark.parametrize("http2", ["false", "true"])
async def test_a_black_hole(http2: str):
    with stuck_port() as stuck:
        async with before(f"http://127.0.0.1:{stuck}", f"http2: {http2}", "timeouts: {connect: 30ms}") as (
            proxy,
            raw,
        ):
            assert told(await raw.post("/")) == (504, "upstream_timeout")
            assert why(proxy) == ["no connection within 0.03s"]
            assert count(proxy) == (0, 0, 0)


async def test_a_dead_address_among_several(monkeypatch: pytest.MonkeyPatch):
    dead = dead_port()
    async with Scripted(answering(OK)) as scripted:

        async def both(_: object) -> list[dial.Sockaddr]:
            family = dial.socket.AF_INET
            return [(family, ("127.0.0.1", dead)), (family, ("127.0.0.1", scripted.port))]

        monkeypatch.setattr(dial, "_resolve", both)
        async with before(scripted.url) as (_, raw):
            assert (await raw.post("/")).status == 200


async def test_a_caller_that_leaves_while_a_connection_is_opened_leaves_none():
    with stuck_port() as stuck:
        async with before(f"http://127.0.0.1:{stuck}") as (proxy, raw):
            await raw.send(head("POST", "/", content_length=str(len(CHAT))) + CHAT)
            await until(lambda: count(proxy) == (0, 0, 1))
            raw.leave()
            await until(lambda: count(proxy) == (0, 0, 0))


# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("http2", ["false", "true"])
@pytest.mark.parametrize(
    ("fault", "detail"),
    [
        ("expired", "certificate not accepted: certificate has expired"),
        ("other name", "certificate not accepted: it is for another name"),
        ("other authority", "certificate not accepted: "),
        ("no TLS", "TLS failed: "),
    ],
)
async def test_an_upstream_that_does_not_prove_who_it_is(
    authority: trustme.CA, files: Path, fault: str, detail: str, http2: str
):
    async def plain(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Plain\r\ncontent-length: 0\r\n\r\n")

    issuer = trustme.CA() if fault == "other authority" else authority
    context = server(issuer, *(["other.test"] if fault == "other name" else []), expired=fault == "expired")
    far = Scripted(plain) if fault == "no TLS" else Scripted(answering(OK), context=context)
    async with far as scripted:
        url = f"https://localhost:{scripted.port}"
        async with before(url, f"http2: {http2}", f"tls: {{ca: {files / 'ca.pem'}}}") as (proxy, raw):
            for _ in range(2):
                assert told(await raw.post("/")) == (502, "upstream_failed")
                assert count(proxy) == (0, 0, 0)
            assert all(said.startswith(detail) and "localhost" not in said for said in why(proxy))
    assert scripted.requests == []


async def test_a_private_authority_and_our_own_certificate(authority: trustme.CA, files: Path):
    context = server(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    own = f"cert: {files / 'own.pem'}, key: {files / 'own.key'}"
    async with Scripted(answering(OK), context=context) as scripted:
        async with before(scripted.url, f"tls: {{ca: {files / 'ca.pem'}, {own}}}") as (_, raw):
            assert (await raw.post("/")).status == 200
        async with before(scripted.url, f"tls: {{ca: {files / 'ca.pem'}}}") as (proxy, raw):
            assert told(await raw.post("/")) == (502, "upstream_failed")
            await until(lambda: count(proxy) == (0, 0, 0))
    assert len(scripted.requests) == 1


async def test_a_renewed_authority_is_taken_up_at_a_reload(files: Path):
    renewed = trustme.CA()
    async with Scripted(answering(OK), context=server(renewed)) as scripted:
        text = yaml(scripted.url, f"tls: {{ca: {files / 'ca.pem'}}}")
        async with running(text) as proxy, connect(proxy.url) as raw:
            assert (await raw.post("/")).status == 502
            same = proxy.proxy._upstreams["api"]
            proxy.reload(text)
            assert proxy.proxy._upstreams["api"] is same
            renewed.cert_pem.write_to_path(str(files / "ca.pem"))
            proxy.reload(text)
            assert (await raw.post("/")).status == 200


@pytest.mark.parametrize("says_so", [True, False])
async def test_an_end_of_tls_that_can_be_forged_ends_no_answer_well(
    authority: trustme.CA, files: Path, says_so: bool
):
    """Stricter than nginx (SSL_OP_IGNORE_UNEXPECTED_EOF) and Envoy, to which any end of TCP is one of TLS."""
    context = server(authority)

    async def script(peer: Peer) -> None:
        far = await accept(peer, context)
        said = far.tickets + far.say(b"HTTP/1.1 200 OK\r\n\r\nall of it?")
        await peer.send(said + far.farewell() if says_so else said)

    async with Scripted(script) as scripted:
        url = f"https://localhost:{scripted.port}"
        async with before(url, f"tls: {{ca: {files / 'ca.pem'}}}") as (proxy, raw):
            await raw.send(closing(head("POST", "/", content_length=str(len(CHAT))) + CHAT))
            got = await everything(raw)
            await until(lambda: count(proxy) == (0, 0, 0))
    assert (got.status, got.content, got.whole) == (200, b"all of it?", says_so)


# ── HTTP/2 and outbound proxies ─────────────────────────────────────────────────────────────────────


async def test_an_upstream_that_speaks_http2_only(authority: trustme.CA, files: Path):
    async def script(stream: Stream) -> None:
        await stream.ended.wait()
        stream.answer(200, stream.body, (b"content-type", b"application/json"))

    async with ScriptedH2(script, context=server(authority)) as scripted:
        async with before(scripted.url, "http2: true", f"tls: {{ca: {files / 'ca.pem'}}}") as (proxy, raw):
            for _ in range(2):
                reply = await raw.post("/v1/a%2Fb//c?d=+")
                assert (reply.status, reply.body) == (200, CHAT)
            assert count(proxy) == (0, 1, 0)
    assert scripted.connections == 1
    assert {stream.all(b":path")[0] for stream in scripted.streams} == {b"/v1/a%2Fb//c?d=+"}


async def test_an_event_of_an_http2_stream_is_not_held_and_a_caller_that_leaves_ends_it():
    async def script(stream: Stream) -> None:
        stream.head(200, (b"content-type", b"text/event-stream"))
        stream.send(b"data: 1\n\n")
        await stream.gone.wait()

    async with ScriptedH2(script) as scripted, before(scripted.url, "http2: true") as (proxy, raw):
        await raw.send(head("POST", "/", content_length=str(len(CHAT))) + CHAT)
        assert (await bounded(raw.reader.readuntil(b"\n\n"))).endswith(b"data: 1\n\n")
        raw.leave()
        await bounded(scripted.streams[0].gone.wait())
        await until(lambda: count(proxy) == (0, 0, 0))


@pytest.mark.parametrize("socks", [False, True], ids=["http", "socks5"])
async def test_an_upstream_behind_an_outbound_proxy(authority: trustme.CA, files: Path, socks: bool):
    async with Scripted(answering(OK), context=server(authority)) as scripted, Outbound() as outbound:
        way = outbound.socks_url if socks else outbound.url
        tls = f"tls: {{ca: {files / 'ca.pem'}}}"
        async with before(scripted.url, f"proxy: {way}", tls) as (proxy, raw):
            for _ in range(2):
                assert (await raw.post("/")).status == 200
            assert count(proxy) == (0, 1, 0)
    assert outbound.asked == [f"localhost:{scripted.port}".encode()]


async def test_the_environment_sends_no_call_another_way_unless_it_is_asked(monkeypatch: pytest.MonkeyPatch):
    async with Scripted(answering(OK)) as scripted, Outbound() as outbound:
        monkeypatch.setenv("http_proxy", outbound.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with before(scripted.url) as (_, raw):
            assert (await raw.post("/")).status == 200
            assert outbound.asked == []
        async with before(scripted.url, "proxy: env") as (_, raw):
            assert (await raw.post("/a")).status == 200
            assert outbound.asked == [f"{scripted.url}/a".encode()]
        monkeypatch.setenv("no_proxy", "localhost")
        async with before(scripted.url, "proxy: env") as (_, raw):
            assert (await raw.post("/b")).status == 200
            assert len(outbound.asked) == 1


async def test_an_outbound_proxy_that_refuses():
    async with Outbound(refuses=True) as outbound:
        async with before("https://localhost:1", f"proxy: {outbound.url}") as (proxy, raw):
            assert told(await raw.post("/")) == (502, "upstream_failed")
            assert why(proxy) == ["the outbound proxy refused with 407"]
            assert count(proxy) == (0, 0, 0)
