"""The request's head on its way to the upstream: what goes no further, what is added, what stays as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.kit.bench import Bench, answering_ok, bench_with
from tests.kit.scripted import Heard
from tests.kit.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.conformance("headers")]


def get(target: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([b"GET %b HTTP/1.1" % target, b"host: proxy.test:81", *fields, b"", b""])


async def heard(bench: Bench, request: bytes, status: int = 200) -> Heard:
    """What of a request reached the upstream."""
    bench.play(answering_ok)
    async with bench.connect() as raw:
        await raw.send(request)
        assert (await raw.reply()).status == status
    [one] = bench.heard
    return one


async def refused(bench: Bench, request: bytes) -> int:
    """The status of a request of which nothing reached the upstream."""
    bench.play(answering_ok)
    async with bench.connect() as raw:
        await raw.send(request)
        reply = await raw.reply()
    assert bench.heard == []
    return reply.status


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def keyed() -> AsyncIterator[Bench]:
    """The configuration holds the credentials."""
    async with bench_with(upstream="credentials: {authorization: Bearer ours}") as bench:
        yield bench


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def behind_two() -> AsyncIterator[Bench]:
    """Two proxies stand in front of ours."""
    async with bench_with(top="forwarded: {trusted_hops: 2}\n") as bench:
        yield bench


# ── what stays between the caller and us, RFC 9110 §7.6.1 ───────────────────────────────────────────

HOP_BY_HOP = [
    b"connection: close, x-other",
    b"keep-alive: timeout=5",
    b"proxy-connection: keep-alive",
    b"proxy-authorization: Basic eDp5",
    b"te: trailers",
    b"trailer: x-sum",
    b"upgrade: h2c",
    b"http2-settings: AAMAAABk",
    b"expect: 100-continue",
    b"Keep-Alive: timeout=5",
    b"TE: trailers, deflate",
]


@pytest.mark.parametrize("field", HOP_BY_HOP, ids=lambda field: field.decode())
async def test_hop_by_hop_headers_go_no_further(bench: Bench, field: bytes):
    one = await heard(bench, get(b"/x", field, b"x-kept: 1"))
    assert one.all(field.partition(b":")[0].lower()) == []
    assert one.all(b"x-kept") == [b"1"]


NAMED = {
    "one": ([b"connection: x-hop", b"x-hop: 1"], True),
    "in_capitals": ([b"Connection: X-HOP", b"x-hop: 1"], True),
    "named_after_it": ([b"x-hop: 1", b"connection: x-hop"], True),
    "among_others": ([b"connection: keep-alive,x-hop\t, foo", b"x-hop: 1"], True),
    "in_a_second_header": ([b"connection: foo", b"connection: x-hop", b"x-hop: 1"], True),
    "twice_there": ([b"connection: x-hop", b"x-hop: 1", b"x-hop: 2"], True),
    "part_of_a_name": ([b"connection: x-ho", b"x-hop: 1"], False),
    "empty": ([b"connection: , ,", b"x-hop: 1"], False),
}


@pytest.mark.parametrize("case", NAMED)
async def test_what_connection_names_goes_no_further(bench: Bench, case: str):
    fields, named = NAMED[case]
    one = await heard(bench, get(b"/x", *fields))
    assert one.all(b"x-hop") == ([] if named else [b"1"])


@pytest.mark.parametrize(
    "name", [b"host", b"authorization", b"content-length", b"x-forwarded-for", b"x-forwarded-proto"]
)
async def test_connection_cannot_take_away_what_we_write(keyed: Bench, name: bytes):
    """Envoy's CVE-2020-8663 and its kin: a caller that unsets what the next server relies on."""
    request = get(b"/x", b"connection: " + name, b"content-length: 2").replace(b"GET", b"POST") + b"{}"
    one = await heard(keyed, request)
    assert len(one.all(name)) == 1
    assert one.body == b"{}"


# ── where it goes, and where it came from ───────────────────────────────────────────────────────────


async def test_the_host_is_the_upstreams(bench: Bench):
    one = await heard(bench, get(b"/x"))
    assert one.all(b"host") == [f"localhost:{bench.upstream.port}".encode()]


async def test_the_upstream_is_told_how_the_call_began(bench: Bench):
    one = await heard(bench, get(b"/x"))
    assert one.all(b"x-forwarded-for") == [b"127.0.0.1"]
    assert one.all(b"x-forwarded-proto") == [b"http"]
    assert one.all(b"x-forwarded-host") == [b"proxy.test:81"]


@pytest.mark.parametrize(
    "target", [b"http://other.test:82/x", b"http://u:p@other.test:82", b"http://other.test:82?q"]
)
async def test_the_authority_of_an_absolute_target_stands_above_host(bench: Bench, target: bytes):
    """RFC 9112 §3.2.2; so in nginx and Envoy."""
    one = await heard(bench, get(target))
    assert one.all(b"x-forwarded-host") == [b"other.test:82"]
    assert one.all(b"host") == [f"localhost:{bench.upstream.port}".encode()]


THEIRS = [b"x-forwarded-proto: https", b"x-forwarded-host: first.test"]


@pytest.mark.parametrize("addresses", [[], [b"6.6.6.6"], [b"6.6.6.6, 7.7.7.7"], [b"6.6.6.6", b"7.7.7.7"]])
async def test_a_caller_is_not_believed_about_itself(bench: Bench, addresses: list[bytes]):
    """Envoy at the edge: the address is added to the list; scheme and host are those of this request."""
    lists = [b"x-forwarded-for: " + each for each in addresses]
    one = await heard(bench, get(b"/x", *lists, *THEIRS))
    assert one.all(b"x-forwarded-for") == [b", ".join([*addresses, b"127.0.0.1"])]
    assert one.all(b"x-forwarded-proto") == [b"http"]
    assert one.all(b"x-forwarded-host") == [b"proxy.test:81"]


@pytest.mark.parametrize(
    ("addresses", "believed"),
    [
        ([], False),
        ([b"1.1.1.1"], False),
        ([b"1.1.1.1, 2.2.2.2"], True),
        ([b"1.1.1.1", b"2.2.2.2"], True),
        ([b"6.6.6.6, 1.1.1.1, 2.2.2.2"], True),
    ],
)
async def test_trusted_hops_are_believed_where_all_of_them_were_passed(
    behind_two: Bench, addresses: list[bytes], believed: bool
):
    """Envoy: a list shorter than xff_num_trusted_hops was not written by those hops."""
    lists = [b"x-forwarded-for: " + each for each in addresses]
    one = await heard(behind_two, get(b"/x", *lists, *THEIRS))
    assert one.all(b"x-forwarded-for") == [b", ".join([*addresses, b"127.0.0.1"])]
    assert one.all(b"x-forwarded-proto") == [b"https" if believed else b"http"]
    assert one.all(b"x-forwarded-host") == [b"first.test" if believed else b"proxy.test:81"]


async def test_trusted_hops_that_say_nothing_of_scheme_and_host_leave_ours(behind_two: Bench):
    one = await heard(behind_two, get(b"/x", b"x-forwarded-for: 1.1.1.1, 2.2.2.2"))
    assert one.all(b"x-forwarded-proto") == [b"http"]
    assert one.all(b"x-forwarded-host") == [b"proxy.test:81"]


# ── the target, byte for byte ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "target",
    [
        b"/a%2Fb",
        b"/a%2fb",
        b"/a//b",
        b"//a",
        b"/a/./b",
        b"/a/../b",
        b"/a/%2e%2e/b",
        b"/a;v=1/b",
        b"/a+b",
        b"/a%20b?c=d+e",
        b"/a?b=c&b=d&&",
        b"/a?",
        b"/a??b",
        b"/a?b#".rstrip(b"#"),
        b"/?a=/../..",
        b"/a?x=http://y/",
        b"/a%00b",
        b"/a%0d%0ab",
        b"/%E2%82%AC",
        b"/a%zz%",
        b"/a@b:c,d=e!f$g&h'i(j)k*l~m",
        b'/a"<>\\^`{|}',
        b"/" + b"a" * 8000,
    ],
    ids=lambda target: target[:30].decode(),
)
async def test_path_and_query_are_forwarded_byte_for_byte(bench: Bench, target: bytes):
    one = await heard(bench, get(target))
    assert one.line == b"GET %b HTTP/1.1" % target


# ── everything else ─────────────────────────────────────────────────────────────────────────────────


async def test_other_headers_stay_as_they_are_in_their_order(bench: Bench):
    fields = [
        (b"accept-encoding", b"gzip, br;q=0.5"),
        (b"content-encoding", b"gzip"),
        (b"cookie", b"a=b; c=d"),
        (b"x-twice", b"1"),
        (b"x-twice", b"2"),
        (b"x-empty", b""),
        (b"x-bytes", b"\xe9\xff"),
        (b"x-inner", b"a \t b"),
        (b"x-list", b"a, \"b,c\""),
    ]  # fmt: skip
    one = await heard(bench, get(b"/x", *(name + b": " + value for name, value in fields)))
    assert [field for field in one.headers if field in fields] == fields


@pytest.mark.parametrize("name", [b"X-Caller-Id", b"x-CALLER-id"])
async def test_a_headers_name_is_known_in_any_case(keyed: Bench, name: bytes):
    one = await heard(keyed, get(b"/x", name + b": somebody"))
    assert one.all(b"x-caller-id") == []


CREDENTIALS = [
    b"authorization: Bearer theirs",
    b"Authorization: Basic dGhlaXJz",
    b"AUTHORIZATION:theirs",
    b"x-api-key: theirs",
    b"api-key: theirs",
    b"x-goog-api-key: theirs",
    b"proxy-authorization: Basic dGhlaXJz",
    b"x_api_key: theirs",
    b"X_Api-Key: theirs",
    b"x-caller-id: theirs",
]


@pytest.mark.parametrize("field", CREDENTIALS, ids=lambda field: field.decode())
async def test_a_callers_credential_is_never_forwarded_where_we_hold_one(keyed: Bench, field: bytes):
    one = await heard(keyed, get(b"/x", field))
    assert one.all(b"authorization") == [b"Bearer ours"]
    assert b"theirs" not in one.raw
    assert b"dGhlaXJz" not in one.raw


@pytest.mark.parametrize("field", [b"authorization: Bearer theirs", b"x-api-key: theirs", b"cookie: theirs"])
async def test_without_credentials_of_ours_the_callers_own_pass(bench: Bench, field: bytes):
    name, _, value = field.partition(b": ")
    assert (await heard(bench, get(b"/x", field))).all(name) == [value]


async def test_an_expectation_is_answered_by_us_when_the_body_is_wanted(bench: Bench):
    bench.play(answering_ok)
    async with bench.connect() as raw:
        expecting = get(b"/x", b"expect: 100-continue", b"content-length: 2").replace(b"GET", b"POST")
        await raw.send(expecting)
        assert await raw.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await raw.send(b"{}")
        assert (await raw.reply()).status == 200
    [one] = bench.heard
    assert (one.body, one.all(b"expect")) == (b"{}", [])


async def test_http_1_0_is_told_nothing_of_100(bench: Bench):
    """RFC 9110 §10.1.1: to HTTP/1.0 the expectation means nothing."""
    bench.play(answering_ok)
    async with bench.connect() as raw:
        head = get(b"/x", b"expect: 100-continue", b"content-length: 2").replace(b"HTTP/1.1", b"HTTP/1.0")
        await raw.send(head)
        await until(lambda: bench.in_flight)
        await raw.send(b"{}")
        assert (await raw.reply()).status == 200


async def test_an_expectation_beside_an_offered_upgrade_is_answered_too(bench: Bench):
    """curl --http2 with a body of more than 1 MB says both."""
    bench.play(answering_ok)
    async with bench.connect() as raw:
        offered = [b"connection: upgrade", b"upgrade: h2c", b"expect: 100-continue", b"content-length: 2"]
        await raw.send(get(b"/x", *offered).replace(b"GET", b"POST"))
        assert await raw.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await raw.send(b"{}")
        assert (await raw.reply()).status == 200


async def test_a_websocket_upgrade_is_refused_and_says_so(bench: Bench):
    upgrade = [b"connection: upgrade", b"upgrade: websocket", b"sec-websocket-version: 13"]
    assert await refused(bench, get(b"/x", *upgrade)) == 501
