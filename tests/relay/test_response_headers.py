"""Headers on the way back to the caller, and the credentials that only the configuration holds."""

from __future__ import annotations

import pytest

from tests.kit.bench import GET, POST, Bench, bench_with, closing
from tests.kit.scripted import OK, answering

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.conformance("headers")]


def ok(*fields: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *fields, b"content-length: 2", b"", b"ok"])


# ── what stays between the upstream and us ──────────────────────────────────────────────────────────

HOP_BY_HOP = {
    "connection": b"connection: keep-alive",
    "keep_alive": b"keep-alive: timeout=5, max=100",
    "proxy_connection": b"proxy-connection: keep-alive",
    "proxy_authenticate": b"proxy-authenticate: Basic",
    "te": b"te: trailers",
    "trailer": b"trailer: x-sum",
    "upgrade": b"upgrade: h2c",
}


@pytest.mark.parametrize("case", HOP_BY_HOP)
async def test_hop_by_hop_headers_go_no_further(bench: Bench, case: str):
    """RFC 9110 §7.6.1, and those of RFC 2616 §13.5.1 that are still sent."""
    got = await bench.gets(ok(HOP_BY_HOP[case], b"x-kept: 1"))
    name = HOP_BY_HOP[case].partition(b":")[0]
    assert (got.status, got.body, got.all(b"x-kept")) == (200, b"ok", [b"1"])
    assert got.all(name) == ([b"close"] if name == b"connection" else [])  # the caller's own wish, echoed


NAMED = {
    "one": ([b"connection: x-hop", b"x-hop: 1"], True),
    "in_capitals": ([b"Connection: X-HOP", b"x-hop: 1"], True),
    "named_after_it": ([b"x-hop: 1", b"connection: x-hop"], True),
    "among_others": ([b"connection: keep-alive, x-hop ,foo", b"x-hop: 1"], True),
    "in_a_second_header": ([b"connection: foo", b"connection: x-hop", b"x-hop: 1"], True),
    "twice_there": ([b"connection: x-hop", b"x-hop: 1", b"x-hop: 2"], True),
    "another": ([b"connection: x-ho", b"x-hop: 1"], False),
    "empty": ([b"connection: ,,", b"x-hop: 1"], False),
}


@pytest.mark.parametrize("case", NAMED)
async def test_what_connection_names_goes_no_further(bench: Bench, case: str):
    fields, named = NAMED[case]
    got = await bench.gets(ok(*fields))
    assert (got.status, got.body) == (200, b"ok")
    assert got.all(b"x-hop") == ([] if named else [b"1"])


@pytest.mark.parametrize("name", [b"content-length", b"transfer-encoding"])
async def test_connection_cannot_take_the_framing_away(bench: Bench, name: bytes):
    """nginx and Envoy too keep the length; the framing is ours anyway."""
    got = await bench.gets(ok(b"connection: " + name))
    assert (got.status, got.content, got.whole) == (200, b"ok", True)
    assert got.all(b"content-length") == [b"2"]


# ── what is carried on as it is ─────────────────────────────────────────────────────────────────────

UNTOUCHED = {
    "date": [b"date: Sun, 06 Nov 1994 08:49:37 GMT"],
    "server": [b"server: upstream/1.0"],
    "both_of_our_own_names": [b"date: yesterday", b"server: x", b"via: 1.1 other"],
    "content_encoding": [b"content-encoding: gzip"],
    "content_type": [b"content-type: text/event-stream; charset=utf-8"],
    "cookies": [b"set-cookie: a=1; Path=/", b"set-cookie: b=2, c=3", b"set-cookie: a=1; Path=/"],
    "cookies_amid_others": [b"set-cookie: a=1", b"x-between: 1", b"set-cookie: b=2"],
    "challenges": [b'www-authenticate: Basic realm="a"', b"www-authenticate: Bearer"],
    "vary": [b"vary: accept", b"vary: origin"],
    "location": [b"location: http://other/a%2Fb//c/../d;e?f=g+h"],
    "retry_after": [b"retry-after: 7", b"retry-after-ms: 6500"],
    "limits_of_openai": [b"x-ratelimit-remaining-requests: 9", b"x-ratelimit-reset-tokens: 6m0s"],
    "request_ids": [b"x-request-id: req_1", b"request-id: req_2"],
    "an_mcp_session": [b"mcp-session-id: 1868a90c"],
    "an_empty_value": [b"x-empty: "],
    "bytes_beyond_ascii": [b"x-bytes: \xc3\xa4\xff"],
    "blanks_inside": [b"x-blanks: a  b\tc"],
    "a_colon_inside": [b"x-colon: a: b"],
    "every_sign_of_a_token": [b"x!#$%&'*+-.^_`|~09: 1"],
    "a_long_value": [b"x-long: " + b"v" * 30_000],
    "cors": [b"access-control-allow-origin: *", b"access-control-expose-headers: x-a, x-b"],
    "no_sniff_of_ours": [b"x-content-type-options: nosniff", b"strict-transport-security: max-age=1"],
}


@pytest.mark.parametrize("case", UNTOUCHED)
async def test_carried_on_as_it_came(bench: Bench, case: str):
    """Each line for itself and in its order. nginx would replace Date and Server; Envoy passes them on."""
    got = await bench.gets(ok(*UNTOUCHED[case]))
    names = {line.partition(b": ")[0] for line in UNTOUCHED[case]}
    lines = [line for line in got.head.split(b"\r\n")[1:] if line.partition(b": ")[0] in names]
    assert lines == UNTOUCHED[case]
    assert (got.status, got.body) == (200, b"ok")


async def test_names_are_told_in_small_letters(bench: Bench):
    """Names have no case (RFC 9110 §5.1); Envoy writes them small too."""
    got = await bench.gets(ok(b"X-Request-ID: Req_1", b"ETag: W/X"))
    assert (got.all(b"x-request-id"), got.all(b"etag")) == ([b"Req_1"], [b"W/X"])


async def test_nothing_is_added_to_an_answer(bench: Bench):
    got = await bench.gets(ok())
    assert got.head == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n"


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"zstd", b"identity", b"unheard-of"])
async def test_an_encoded_body_is_not_looked_into(bench: Bench, encoding: bytes):
    body = bytes(range(256)) * 4
    got = await bench.gets(
        b"HTTP/1.1 200 OK\r\ncontent-encoding: %b\r\ncontent-length: 1024\r\n\r\n%b" % (encoding, body)
    )
    assert (got.body, got.all(b"content-encoding")) == (body, [encoding])


async def test_the_upstream_cannot_speak_for_its_connection_to_ours(bench: Bench):
    """Its `close` is about its own connection: the caller's goes on."""
    bench.play(answering(ok(b"connection: close")))
    async with bench.connect() as raw:
        for _ in range(3):
            await raw.send(GET)
            assert (await raw.reply()).headers.get("connection") is None
    assert bench.upstream.connections == 3


# ── the request's own, as the upstream hears them ───────────────────────────────────────────────────

TARGETS = [
    b"/a%2Fb", b"/a%2fb", b"//a//b/", b"/a/./b", b"/a/../b", b"/a;b=c;d", b"/a+b", b"/a%20b", b"/%C3%A4",
    b"/a?b=c&b=d", b"/a?", b"/a?b?c", b"/a?b=%2F%26", b"/a?q=a+b", b"/a?../b", b"/a?b;c", b"/a,b", b"/a:b",
    b"/a@b", b"/~a", b"/a'b", b"/a(b)!*$", b"/%", b"/%zz", b"/a%00b", b"/a?" + b"x" * 4000, b"/a%0d%0ab",
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=[target.decode()[:20] for target in TARGETS])
async def test_the_target_is_forwarded_byte_for_byte(bench: Bench, target: bytes):
    """As by nginx's proxy_pass without a path; Envoy's default (no normalize_path) too."""
    bench.play(answering(OK))
    got = await bench.ask(closing(GET).replace(b"/x", target, 1))
    [heard] = bench.heard
    assert (got.status, heard.line) == (200, b"GET %b HTTP/1.1" % target)


async def test_host_is_the_upstreams(bench: Bench):
    bench.play(answering(OK))
    await bench.ask(closing(GET))
    [heard] = bench.heard
    assert heard.all(b"host") == [b"localhost:%d" % bench.upstream.port]


SPELLINGS = [
    b"authorization", b"Authorization", b"AUTHORIZATION", b"x-api-key", b"X-Api-Key", b"api-key", b"Api-Key",
    b"x-goog-api-key", b"X-Goog-Api-Key", b"ocp-apim-subscription-key", b"x-auth-token",
    b"proxy-authorization", b"x_api_key", b"API_KEY", b"X_Goog_Api_Key", b"x-goog_api-key", b"x-caller-id",
    b"X_Caller_Id",
]  # fmt: skip
CREDENTIALS = 'credentials: {authorization: "Bearer ours", x-org: "ours"}'


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_credentials_of_the_configuration_replace_the_callers(spelling: bytes):
    async with bench_with(upstream=CREDENTIALS) as bench:
        bench.play(answering(OK))
        request = closing(POST).replace(
            b"\r\n\r\n", b"\r\n%b: theirs\r\n%b: again\r\n\r\n" % (spelling, spelling)
        )
        got = await bench.ask(request)
        [heard] = bench.heard
    assert got.status == 200
    assert b"theirs" not in heard.raw
    assert b"again" not in heard.raw
    assert (heard.all(b"authorization"), heard.all(b"x-org")) == ([b"Bearer ours"], [b"ours"])


@pytest.mark.parametrize("spelling", [b"X-Org", b"x_org", b"connection: x-org, authorization\r\nx-org"])
async def test_what_the_configuration_sets_no_caller_sets_or_takes_away(spelling: bytes):
    async with bench_with(upstream=CREDENTIALS) as bench:
        bench.play(answering(OK))
        await bench.ask(
            GET.replace(b"host: proxy\r\n", b"host: proxy\r\nconnection: close\r\n%b: theirs\r\n" % spelling)
        )
        [heard] = bench.heard
    assert (heard.all(b"authorization"), heard.all(b"x-org")) == ([b"Bearer ours"], [b"ours"])
    assert heard.all(b"x_org") == []


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key", b"api-key", b"x-auth-token", b"cookie"])
async def test_without_any_in_the_configuration_the_callers_own_go_on(bench: Bench, name: bytes):
    bench.play(answering(OK))
    await bench.ask(closing(GET).replace(b"\r\n\r\n", b"\r\n%b: theirs\r\n\r\n" % name))
    [heard] = bench.heard
    assert heard.all(name) == [b"theirs"]


async def test_the_key_of_the_configuration_is_in_no_answer():
    async with bench_with(upstream=CREDENTIALS) as bench:
        bench.play(answering(b"garbage\r\n\r\n"))
        got = await bench.ask(closing(GET))
        log = bench.proxy.log.getvalue()
    assert got.status == 502
    assert b"ours" not in got.raw
    assert "Bearer ours" not in log


async def test_the_proxy_is_well_after_all_this(bench: Bench):
    await bench.serves()
