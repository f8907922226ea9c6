"""Calls through an outbound proxy: HTTP and SOCKS5, and which of them is taken from the environment."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path

import pytest
import trustme

from proxy.core.verdict import Outcome, Reason
from proxy.upstream import outbound
from proxy.upstream.address import parse
from tests.kit.asking import ask, get, post, upstream_at
from tests.kit.caller import FakeCaller
from tests.kit.outbound import Outbound
from tests.kit.ports import dead_port
from tests.kit.scripted import OK, Peer, Scripted, answering, saying
from tests.kit.scripted_h2 import ScriptedH2, ok
from tests.kit.tls import server
from tests.kit.waiting import bounded, until


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    return server(authority, "localhost")


@pytest.mark.parametrize("socks", [False, True], ids=["http", "socks5"])
@pytest.mark.parametrize("http2", [False, True], ids=["http/1.1", "http/2"])
async def test_an_https_upstream_is_reached_through_a_tunnel(
    context: ssl.SSLContext, ca: Path, socks: bool, http2: bool
):
    far = ScriptedH2(ok, context=context) if http2 else Scripted(answering(OK), context=context)
    async with far as scripted, Outbound() as proxy:
        way = proxy.socks_url if socks else proxy.url
        async with upstream_at(scripted.url, ca=ca, http2=http2, proxy=way) as upstream:
            for reused in (False, True):
                result, caller = await ask(upstream, post(b"x" * 100_000))
                assert (result.complete, result.reused, caller.body) == (True, reused, b"ok")
            assert repr(upstream.pool) == "<Pool 0 in use, 1 idle>"
        await until(lambda: not proxy.open)
    assert proxy.asked == [f"localhost:{scripted.port}".encode()]


async def test_an_http_upstream_is_named_to_an_http_proxy_byte_for_byte():
    async with Scripted(answering(OK)) as scripted, Outbound() as proxy:
        way = proxy.url.replace("//", "//user:p%40ss@")
        async with upstream_at(scripted.url, proxy=way) as upstream:
            result, _ = await ask(upstream, get(b"/a%2Fb//../c?d"))
    assert result.complete
    assert proxy.asked == [scripted.url.encode() + b"/a%2Fb//../c?d"]
    secret = base64.b64encode(b"user:p@ss")
    assert b"Basic " + secret in proxy.heads[0]


async def test_what_is_for_the_proxy_stays_with_it(context: ssl.SSLContext, ca: Path):
    async with Scripted(answering(OK), context=context) as scripted, Outbound() as proxy:
        way = proxy.url.replace("//", "//user:pass@")
        async with upstream_at(scripted.url, ca=ca, proxy=way) as upstream:
            await ask(upstream, get(headers=[(b"proxy-authorization", b"the caller's")]))
    assert b"Proxy-Authorization: Basic" in proxy.heads[0]
    assert not scripted.requests[0].all(b"proxy-authorization")


@pytest.mark.parametrize(
    ("socks", "detail"),
    [(False, "the outbound proxy refused with 407"), (True, "the outbound proxy refused")],
)
async def test_a_proxy_that_refuses(socks: bool, detail: str):
    async with Outbound(refuses=True) as proxy:
        way = proxy.socks_url if socks else proxy.url
        async with upstream_at("https://localhost:1", proxy=way) as upstream:
            result, _ = await ask(upstream, get())
            assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
        await until(lambda: not proxy.open)
    assert (result.outcome, result.reason) == (Outcome.FAILED, Reason.UPSTREAM_FAILED)
    assert result.detail == detail


async def test_a_proxy_that_is_not_there_or_says_nothing():
    async with upstream_at("https://localhost:1", proxy=f"http://127.0.0.1:{dead_port()}") as upstream:
        dead, _ = await ask(upstream, get())
    async with Outbound(hangs=True) as proxy:
        async with upstream_at("https://localhost:1", proxy=proxy.url, connect_s=0.03) as upstream:
            mute, _ = await ask(upstream, get())
            caller = FakeCaller()
            asking = asyncio.create_task(ask(upstream, get(), caller, deadline=float("inf")))
            await until(lambda: len(proxy.asked) == 2)
            caller.leave()
            gone, _ = await bounded(asking)
            assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
        await until(lambda: not proxy.open)
    assert (dead.reason, dead.detail) == (Reason.UPSTREAM_FAILED, "connection refused")
    assert (mute.reason, mute.detail) == (Reason.UPSTREAM_TIMEOUT, "no connection within 0.03s")
    assert gone.gone


# ── HTTP/1.1 as httpx speaks it ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "complete", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", True, b"ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nok", True, b"ok"),
        (b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", True, b"ok"),
        (b"HTTP/1.1 304 Same\r\ncontent-length: 7\r\n\r\n", True, b""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", False, b"ok"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", False, b"ok"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            False,
            b"",
        ),
        (b"HTTP/1.1 101 Switch\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", False, b""),
        (b"garbage\r\n\r\n", False, b""),
    ],
)
async def test_answers_are_read_as_the_relay_reads_them(answer: bytes, complete: bool, body: bytes):
    async with Scripted(saying(answer)) as scripted, Outbound() as proxy:
        async with upstream_at(scripted.url, proxy=proxy.url) as upstream:
            result, caller = await ask(upstream, get())
    assert (result.complete, caller.ended, caller.body) == (complete, complete, body)
    assert result.outcome is (Outcome.SUCCEEDED if complete else Outcome.FAILED)
    assert b"garbage" not in result.detail.encode()
    assert not {b"content-length"} & {name for name, _ in caller.headers if caller.status == 304}


async def test_an_answer_that_nobody_asked_for_is_nobodys():
    """httpx alone would hand the second answer to the next caller."""
    twice = OK + OK.replace(b"ok", b"no")
    async with Scripted(answering(twice)) as scripted, Outbound() as proxy:
        async with upstream_at(scripted.url, proxy=proxy.url) as upstream:
            for _ in range(2):
                result, caller = await ask(upstream, get())
                assert (result.complete, result.reused, caller.body) == (True, False, b"ok")
    assert scripted.connections == 2


async def test_a_connection_that_the_upstream_closes_is_not_kept():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
        await peer.left()

    async with Scripted(script) as scripted, Outbound() as proxy:
        async with upstream_at(scripted.url, proxy=proxy.url) as upstream:
            result, caller = await ask(upstream, get())
            assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
    assert result.complete
    assert caller.all(b"connection") == []


# ── which proxy ─────────────────────────────────────────────────────────────────────────────────────

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method")


@pytest.mark.parametrize(
    ("environment", "url", "way"),
    [
        ({}, "https://api.test", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "https://api.test", "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://api.test", None),
        (
            {"https_proxy": "http://small:1", "HTTPS_PROXY": "http://p:3128"},
            "https://a.test",
            "http://small:1",
        ),
        ({"HTTP_PROXY": "p:3128"}, "http://api.test", "http://p:3128"),
        ({"HTTP_PROXY": "p:3128", "REQUEST_METHOD": "GET"}, "http://api.test", None),
        ({"ALL_PROXY": "socks5://p:1080"}, "https://api.test", "socks5://p:1080"),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "other.test,.test"}, "https://api.test", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*"}, "https://api.test", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "test:444"}, "https://api.test", "http://p:3128"),
    ],
)
def test_the_environment_is_read_as_by_curl(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, way: str | None
):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert outbound.way_to(parse(url), "env") == way
    assert outbound.way_to(parse(url), None) is None  # nobody asked for it
    assert outbound.way_to(parse(url), "http://own:1") == "http://own:1"


@pytest.mark.parametrize(
    "url", ["ftp://user:hunter2@p:1", "http://", "http://user:hunter2@p:3128/path", "http://p:3128?hunter2"]
)
def test_a_proxy_that_cannot_be_one_is_refused_without_its_secret(url: str):
    with pytest.raises(ValueError, match="a proxy's URL") as caught:
        outbound.checked(url)
    assert "hunter2" not in str(caught.value)
