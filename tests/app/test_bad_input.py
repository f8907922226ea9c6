"""What a careless or hostile caller may send: a clear answer each time, and nothing of ours in it."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest

from proxy.demo import Behaviour, Outage, serve_demo
from tests.app.watching import assert_nothing_is_held, counted
from tests.kit.raw import CHAT, Reply, connect, head
from tests.kit.running import before_demo, running
from tests.kit.waiting import BOUND_S

PATH = "/openai/v1/chat/completions"
SECRET = "sk-live-0123456789"


def assert_nothing_leaks(proxy, reply):
    """No host of an upstream, no credential, no trace of our code."""
    said = f"{reply.headers}{reply.text}"
    upstream = urlsplit(proxy.proxy.settings.upstreams["openai"].url)
    for secret in (str(upstream.port), SECRET, "Traceback", "/proxy/", ".py", "uvicorn"):
        assert secret not in said, f"{secret} in {said}"
    assert "server" not in reply.headers


async def test_an_unknown_route_is_a_404_in_json_that_names_the_prefixes():
    async with before_demo() as proxy, connect(proxy.url) as raw:
        for path in ("/", "/openaix/v1", "/OPENAI/v1", "//openai/v1", "/tools", "/.env", "/openai%2Fv1"):
            reply = await raw.get(path, authorization=f"Bearer {SECRET}")
            assert reply.status == 404
            assert reply.headers["content-type"] == "application/problem+json"
            for prefix in ("/anthropic/", "/mcp/", "/openai/", "/tools/{tool}"):
                assert prefix in reply.json()["detail"]
            assert_nothing_leaks(proxy, reply)
        assert (await counted(proxy))["unknown_route_total"] == 7
        assert proxy.upstream.ledger.arrivals == 0


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"jsonrpc":"2.0","id":{},"method":"x"}'],
)
async def test_malformed_json_to_an_mcp_route_is_a_400_in_json_rpc(body):
    async with before_demo() as proxy, connect(proxy.url) as raw:
        reply = await raw.post("/mcp", body, authorization=f"Bearer {SECRET}")
        assert reply.status == 400
        assert reply.json()["jsonrpc"] == "2.0"
        assert reply.json()["id"] is None
        assert reply.json()["error"]["message"]
        assert_nothing_leaks(proxy, reply)
        assert proxy.upstream.ledger.arrivals == 0
        assert (await counted(proxy))["malformed_total"] == 1
        assert (await raw.post(PATH)).status == 200, "the connection is still good"


@pytest.mark.parametrize("body", [b"{", b'{"messages":[]}', b'{"model":7}'])
async def test_malformed_json_where_the_model_must_be_replaced_is_a_400_that_says_so(body):
    async with before_models() as proxy, connect(proxy.url) as raw:
        reply = await raw.post(PATH, body)
        assert reply.status == 400
        assert reply.json()["error"]["code"] == "malformed_body"
        assert_nothing_leaks(proxy, reply)
        await assert_nothing_is_held(proxy)


async def test_an_absurd_priority_gets_the_default_and_is_counted():
    async with before_demo() as proxy, connect(proxy.url) as raw:
        for absurd in ("urgent!!!", "9" * 1000, "-1", "ROOT"):
            assert (await raw.post(PATH, x_priority=absurd)).status == 200
        assert (await counted(proxy))["unknown_priority_total"] == 4
        flows = proxy.proxy.telemetry._flows.every
        assert {names[1] for names in flows} == {"normal"}


@pytest.mark.parametrize("value", ["-5", "soon", "1.5", "1e3", "", "9" * 30])
async def test_a_deadline_that_means_nothing_is_a_400(value):
    async with before_demo() as proxy, connect(proxy.url) as raw:
        reply = await raw.post(PATH, x_deadline_ms=value)
        assert reply.status == 400
        assert reply.json()["error"]["code"] == "bad_header"
        assert "x-deadline-ms" in reply.json()["error"]["message"]
        assert proxy.upstream.ledger.arrivals == 0


async def test_a_deadline_of_nothing_is_past_already_and_reaches_no_upstream():
    async with before_demo() as proxy, connect(proxy.url) as raw:
        reply = await raw.post(PATH, x_deadline_ms="0")
        assert reply.headers["x-backpressure-reason"] == "waited_too_long"
        assert proxy.upstream.ledger.arrivals == 0


async def test_a_body_over_peek_on_a_route_that_must_read_it_is_a_413():
    async with before_demo(top="peek: 1KiB") as proxy:
        async with connect(proxy.url) as raw:
            await raw.send(head("POST", "/mcp", content_length="1025"))
            reply = await raw.reply()  # by its declared length, before it was sent
            assert reply.status == 413
            assert "1024 bytes" in reply.json()["error"]["message"]
            assert_nothing_leaks(proxy, reply)
        async with connect(proxy.url) as raw:
            await raw.send(head("POST", "/mcp", transfer_encoding="chunked"))
            await raw.send(b"401\r\n" + b" " * 1025 + b"\r\n")
            assert (await raw.reply()).status == 413, "also when it did not say how long it would be"
        async with connect(proxy.url) as raw:
            assert (await raw.post(PATH, CHAT.ljust(100_000))).status == 200, "others need not read theirs"


async def test_a_websocket_upgrade_is_a_501():
    async with before_demo() as proxy, connect(proxy.url) as raw:
        reply = await raw.get(
            "/openai/v1/realtime",
            connection="Upgrade",
            upgrade="websocket",
            sec_websocket_version="13",
            sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==",
        )
        assert reply.status == 501
        assert reply.json()["error"]["code"] == "websocket_not_relayed"
        assert proxy.upstream.ledger.arrivals == 0


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50,  # TLS to a plain port
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost proxy\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET /openai/\xff HTTP/1.1\r\nhost: proxy\r\n\r\n",
        b"GET http://[::1/openai/ HTTP/1.1\r\nhost: proxy\r\n\r\n",
        b"POST /openai/v1 HTTP/1.1\r\nhost: p\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /openai/v1 HTTP/1.1\r\nhost: p\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST /openai/v1 HTTP/1.1\r\nhost: p\r\ncontent-length: -5\r\n\r\n",
        b"POST /openai/v1 HTTP/1.1\r\nhost: p\r\ncontent-length : 5\r\n\r\n",
        b"POST /openai/v1 HTTP/1.1\r\nhost: p\r\n x: folded\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org\r\n\r\n",
    ],
    ids=lambda sent: sent[:30].decode("latin-1"),
)
async def test_what_is_not_http_or_is_ambiguous_is_a_400_and_ends_the_connection(sent):
    async with before_demo() as proxy:
        async with connect(proxy.url) as raw:
            await raw.send(sent)
            reply = await raw.reply()
            assert 400 <= reply.status < 500
            assert reply.headers["content-type"] in {"application/json", "application/problem+json"}
            assert_nothing_leaks(proxy, reply)
            if reply.status == 400:
                assert reply.headers["connection"] == "close"
                assert await raw.is_closed()
        assert proxy.upstream.ledger.arrivals == 0
        async with connect(proxy.url) as raw:
            assert (await raw.post(PATH)).status == 200, "the next caller is served"


@pytest.mark.parametrize(
    "pieces",
    [
        [b"x-big: " + b"a" * (10 * 2**20)],
        [b"x-%d: %b\r\n" % (number, b"a" * 1000) for number in range(10_000)],
        [b"x-%d: 1\r\n" % number for number in range(101)] + [b"\r\n"],
        [b"a" * (10 * 2**20)],
    ],
    ids=["one header of 10 MB", "10 MB of headers", "101 headers", "a name of 10 MB"],
)
async def test_a_head_that_is_too_large_is_a_431_and_the_proxy_serves_on(pieces):
    async with before_demo() as proxy:
        reply = await flood(proxy.url, [head("GET", "/openai/")[:-2], *pieces])
        assert reply.status == 431
        assert json.loads(reply.body)["error"]["code"] == "header_fields_too_large"
        assert_nothing_leaks(proxy, reply)
        async with connect(proxy.url) as raw:
            assert (await raw.post(PATH)).status == 200
        assert proxy.upstream.ledger.arrivals == 1


async def test_a_long_address_is_bounded_like_the_rest_of_the_head():
    async with before_demo() as proxy:
        reply = await flood(proxy.url, [b"GET /openai/" + b"a" * (2 * 2**20) + b" HTTP/1.1\r\n\r\n"])
        assert reply.status == 414


@pytest.mark.parametrize("sent", [b"", b"{"], ids=["nothing", "a part"])
async def test_a_caller_that_sends_no_body_where_one_must_be_read_is_given_up(sent):
    """Nothing is held for it but its connection, and that not for ever."""
    async with before_demo(upstream="timeouts: {idle: 50ms}") as proxy, connect(proxy.url) as raw:
        await raw.send(head("POST", "/mcp", content_length="100") + sent)
        assert await raw.is_closed()
        await assert_nothing_is_held(proxy)


async def flood(url: str, pieces: list[bytes]) -> Reply:
    """Send without looking, as far as it is taken; then read what was said. A reset may follow the answer."""
    loop, parts = asyncio.get_running_loop(), urlsplit(url)
    with socket.socket() as sock:
        sock.setblocking(False)
        async with asyncio.timeout(BOUND_S):
            await loop.sock_connect(sock, (parts.hostname, parts.port))
            with suppress(ConnectionError):
                for piece in pieces:
                    await loop.sock_sendall(sock, piece)
            said = b""
            with suppress(ConnectionError):
                while more := await loop.sock_recv(sock, 65536):
                    said += more
    top, _, body = said.partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return Reply(int(lines[0].split()[1]), headers, body)


@asynccontextmanager
async def before_models():
    """One OpenAI upstream that is down, and another model to fall back to."""
    async with serve_demo(Behaviour(latency_s=0.0, mode=Outage())) as demo:
        yaml = (
            f"upstreams: {{openai: {{url: '{demo.url}', dialect: openai, breaker: off}}}}\n"
            "routes: [{name: chat, path: /openai, upstream: openai, fallback: [{model: cheaper}]}]\n"
        )
        async with running(yaml) as proxy:
            yield proxy
