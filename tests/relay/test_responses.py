"""What becomes of an upstream's answer: relayed whole, cut so that the caller can tell, or a 502.

Where RFC 9110/9112 leaves a choice, the case says whose way it is.
"""

from __future__ import annotations

import pytest

from tests.kit.bench import GET, HEAD, POST, Bench, closing, everything
from tests.kit.scripted import OK, Peer, answering, dies_on_second

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.conformance("responses")]

TOP = b"HTTP/1.1 200 OK\r\n"
CHUNKED = TOP + b"transfer-encoding: chunked\r\n\r\n"
OLD_GET = GET.replace(b"HTTP/1.1", b"HTTP/1.0")

RELAYED = {
    "with_length": (TOP + b"content-length: 2\r\n\r\nok", b"ok"),
    "length_0": (TOP + b"content-length: 0\r\n\r\n", b""),
    "length_with_zeros_before": (TOP + b"content-length: 002\r\n\r\nok", b"ok"),
    "length_amid_blanks": (TOP + b"content-length: \t 2 \t\r\n\r\nok", b"ok"),
    "chunks": (CHUNKED + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n", b"ok"),
    "no_chunks": (CHUNKED + b"0\r\n\r\n", b""),
    "size_in_capitals": (CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "size_with_zeros_before": (CHUNKED + b"0002\r\nok\r\n000\r\n\r\n", b"ok"),
    "chunk_extensions": (CHUNKED + b'2;a=b;c="d e"\r\nok\r\n0;last\r\n\r\n', b"ok"),
    "coding_in_capitals": (TOP + b"Transfer-Encoding: CHUNKED\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
    "until_the_end": (TOP + b"\r\nok", b"ok"),
    "until_the_end_with_close": (TOP + b"connection: close\r\n\r\nok", b"ok"),
    "until_the_end_and_empty": (TOP + b"\r\n", b""),
    "http_1_0_until_the_end": (b"HTTP/1.0 200 OK\r\n\r\nok", b"ok"),
    "http_1_0_with_length": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok"),
    # RFC 9112 §6.1: faulty, and its connection is not used again. nginx and Envoy read it as chunks too.
    "http_1_0_in_chunks": (
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"ok",
    ),
    "no_reason": (b"HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok", b"ok"),
    "no_reason_and_no_blank": (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", b"ok"),
    "a_huge_reason": (b"HTTP/1.1 200 %b\r\ncontent-length: 2\r\n\r\nok" % (b"x" * 60_000), b"ok"),
    "a_reason_of_any_bytes": (b"HTTP/1.1 200 \xff\xfe\r\ncontent-length: 2\r\n\r\nok", b"ok"),
    "large_headers": (TOP + b"a: %b\r\ncontent-length: 2\r\n\r\nok" % (b"x" * 60_000), b"ok"),
    "many_headers": (TOP + b"a: b\r\n" * 1000 + b"content-length: 2\r\n\r\nok", b"ok"),
    "an_upgrade_offered": (
        TOP + b"upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nok",
        b"ok",
    ),
}


@pytest.mark.parametrize("case", RELAYED)
async def test_relayed_whole(bench: Bench, case: str):
    answer, body = RELAYED[case]
    got = await bench.gets(answer)
    assert (got.status, got.content, got.whole, got.cut) == (200, body, True, False)
    [framing] = got.all(b"content-length") + got.all(b"transfer-encoding")  # one, and ours
    assert framing == b"chunked" or framing.isdigit()
    assert got.raw.startswith(b"HTTP/1.1 200 OK\r\n")  # the reason says nothing, and is not carried on


@pytest.mark.parametrize("case", RELAYED)
async def test_relayed_whole_to_http_1_0(bench: Bench, case: str):
    answer, body = RELAYED[case]
    got = await bench.gets(answer, OLD_GET)
    assert (got.status, got.content, got.whole, got.cut) == (200, body, True, False)
    assert got.all(b"transfer-encoding") == []  # RFC 9112 §6.1


STATUSES = (200, 201, 202, 203, 205, 206, 207, 226, 299, 300, 301, 302, 303, 307, 308, 399)
ERRORS = (400, 401, 402, 403, 404, 405, 407, 409, 410, 412, 413, 414, 415, 416, 418, 421, 422, 425, 426, 428)
REFUSALS = (429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 507, 511, 520, 529, 599)


@pytest.mark.parametrize("status", STATUSES + ERRORS + REFUSALS)
async def test_a_status_is_relayed_as_it_came(bench: Bench, status: int):
    answer = b"HTTP/1.1 %d Some Reason\r\ncontent-length: 2\r\nlocation: /y\r\n\r\nok" % status
    got = await bench.gets(answer)
    assert (got.status, got.body, got.all(b"location"), got.reason) == (status, b"ok", [b"/y"], "")


# ── answers without a body ──────────────────────────────────────────────────────────────────────────

BODILESS = {
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", GET, []),
    "204_with_length_0": (b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", GET, []),
    "204_with_length": (b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", GET, []),
    "204_with_a_body": (b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello", GET, []),
    "204_in_chunks": (b"HTTP/1.1 204 No\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", GET, []),
    "304": (b'HTTP/1.1 304 Not Modified\r\netag: "x"\r\n\r\n', GET, []),
    # Its length is that of what is not sent, and optional (RFC 9110 §8.6).
    "304_with_length": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", GET, []),
    "head_with_length": (TOP + b"content-length: 500\r\n\r\n", HEAD, [b"500"]),
    "head_in_chunks": (TOP + b"transfer-encoding: chunked\r\n\r\n", HEAD, []),
    "head_without_framing": (TOP + b"\r\n", HEAD, []),
    "head_204": (b"HTTP/1.1 204 No Content\r\n\r\n", HEAD, []),
    "head_404": (b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\n", HEAD, [b"9"]),
    "head_with_a_body": (TOP + b"content-length: 2\r\n\r\nok", HEAD, [b"2"]),
}


@pytest.mark.parametrize("case", BODILESS)
async def test_no_body_where_none_may_be(bench: Bench, case: str):
    answer, request, length = BODILESS[case]
    got = await bench.gets(answer, request)
    assert (got.status, got.body, got.cut) == (int(answer[9:12]), b"", False)
    assert got.all(b"content-length") == length
    assert got.all(b"transfer-encoding") == []


@pytest.mark.parametrize("case", BODILESS)
async def test_after_an_answer_without_a_body_the_next_is_its_own(bench: Bench, case: str):
    """Two calls on one connection: whatever the first brought, the second gets its own answer."""
    answer, request, _ = BODILESS[case]
    bench.play(answering(answer, TOP + b"content-length: 3\r\n\r\ntwo"))
    async with bench.connect() as raw:
        await raw.send(request + closing(GET))
        got = (await everything(raw)).raw
    first, _, second = got.partition(b"\r\n\r\n")
    assert first.startswith(answer[:12])
    assert second.startswith(TOP)
    assert second.endswith(b"\r\n\r\ntwo")


# ── interim answers ─────────────────────────────────────────────────────────────────────────────────

INTERIM = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "102": b"HTTP/1.1 102 Processing\r\n\r\n",
    "103": b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\nset-cookie: early=1\r\n\r\n",
    "199": b"HTTP/1.1 199 Whatever\r\n\r\n",
    "several": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 5,
    "with_a_length": b"HTTP/1.1 103 Early Hints\r\ncontent-length: 99\r\n\r\n",
    "in_chunks": b"HTTP/1.1 103 Early Hints\r\ntransfer-encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("case", INTERIM)
async def test_an_interim_answer_is_dropped(bench: Bench, case: str):
    """nginx and Envoy drop them too unless told otherwise; none of its headers is taken for the answer's."""
    got = await bench.gets(INTERIM[case] + OK)
    assert (got.status, got.body, got.all(b"link"), got.all(b"set-cookie")) == (200, b"ok", [], [])
    assert got.all(b"content-length") == [b"2"]
    assert got.raw.count(b"HTTP/1.1") == 1


async def test_interim_answers_without_end_are_an_end(bench: Bench):
    got = await bench.gets(INTERIM["103"] * 2000, then="wait")
    assert (got.status, got.reason) == (502, "upstream_failed")


async def test_we_say_continue_ourselves_and_only_when_the_body_is_wanted(bench: Bench):
    """`Expect` goes no further: nginx and Envoy answer it themselves too."""
    bench.play(answering(OK))
    async with bench.connect() as raw:
        await raw.send(
            b"POST /x HTTP/1.1\r\nhost: proxy\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        )
        assert await raw.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await raw.send(b"{}")
        reply = await raw.reply()
    [heard] = bench.heard
    assert (reply.status, heard.body, heard.all(b"expect")) == (200, b"{}", [])


async def test_the_upstreams_own_continue_does_not_reach_the_caller(bench: Bench):
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(INTERIM["100"])
        assert await peer.read(2) == b"{}"
        await peer.send(OK)

    bench.play(script)
    got = await bench.ask(closing(POST))
    assert (got.status, got.raw.count(b"HTTP/1.1")) == (200, 1)


# ── trailers ────────────────────────────────────────────────────────────────────────────────────────

TRAILERS = {
    "one": b"x-sum: 1\r\n",
    "a_cookie": b"set-cookie: a=b\r\n",
    "a_coding": b"transfer-encoding: chunked\r\n",
    "announced": b"x-sum: 1\r\nx-more: 2\r\n",
    "a_name_of_ours": b"x-backpressure-reason: shed\r\n",
}


@pytest.mark.parametrize("case", TRAILERS)
async def test_trailers_are_dropped_and_never_become_headers(bench: Bench, case: str):
    """RFC 9110 §6.5.1 allows it; nginx and Envoy drop them too unless told otherwise."""
    head = TOP + b"trailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n"
    got = await bench.gets(head + b"2\r\nok\r\n0\r\n" + TRAILERS[case] + b"\r\n")
    assert (got.status, got.content, got.whole) == (200, b"ok", True)
    name = TRAILERS[case].partition(b":")[0]
    assert name not in got.body
    assert name == b"transfer-encoding" or name not in got.head


# ── what is no answer ───────────────────────────────────────────────────────────────────────────────

GARBAGE = {
    "nothing": b"",
    "half_a_status_line": b"HTTP/1.1 20",
    "half_a_head": TOP + b"content-",
    "text": b"<html>oops</html>\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a_request": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "http_0_9": b"ok",
    "http_2_preface": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03",
    "http_2_0": b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "http_2": b"HTTP/2 200\r\ncontent-length: 2\r\n\r\nok",
    "http_1_2": b"HTTP/1.2 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "version_0_9": b"HTTP/0.9 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "rtsp": b"RTSP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "ice": b"ICE/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "icy": b"ICY 200 OK\r\n\r\n",
    "in_small_letters": b"http/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "a_blank_before": b" HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "a_line_before": b"\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "two_blanks": b"HTTP/1.1  200 OK\r\ncontent-length: 2\r\n\r\nok",
    "a_tab": b"HTTP/1.1\t200 OK\r\ncontent-length: 2\r\n\r\nok",
    "no_blank_after_status": b"HTTP/1.1 200OK\r\ncontent-length: 2\r\n\r\nok",
    "status_99": b"HTTP/1.1 99 No\r\ncontent-length: 2\r\n\r\nok",
    "status_099": b"HTTP/1.1 099 No\r\ncontent-length: 2\r\n\r\nok",
    "status_000": b"HTTP/1.1 000 No\r\ncontent-length: 2\r\n\r\nok",
    "status_600": b"HTTP/1.1 600 No\r\ncontent-length: 2\r\n\r\nok",
    "status_999": b"HTTP/1.1 999 No\r\ncontent-length: 2\r\n\r\nok",
    "status_1000": b"HTTP/1.1 1000 No\r\ncontent-length: 2\r\n\r\nok",
    "status_negative": b"HTTP/1.1 -20 No\r\ncontent-length: 2\r\n\r\nok",
    "status_in_words": b"HTTP/1.1 two OK\r\ncontent-length: 2\r\n\r\nok",
    "101_nobody_asked_for": b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    "101_bare": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "reason_that_splits": b"HTTP/1.1 200 OK\rset-cookie: a=b\r\ncontent-length: 2\r\n\r\nok",
    "headers_of_100_kB": TOP + b"a: %b\r\n\r\n" % (b"x" * 100_000),
    "100_000_headers": TOP + b"a: b\r\n" * 100_000,
    "a_reason_of_100_kB": b"HTTP/1.1 200 %b\r\n\r\n" % (b"x" * 100_000),
    "closed_after_continue": INTERIM["100"],
    "http_2_0_after_continue": INTERIM["100"] + b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
}

FRAMING = {
    "length_and_chunks": b"content-length: 2\r\ntransfer-encoding: chunked",
    "chunks_and_length": b"transfer-encoding: chunked\r\ncontent-length: 2",
    "two_lengths": b"content-length: 2\r\ncontent-length: 3",
    "the_same_length_twice": b"content-length: 2\r\ncontent-length: 2",  # RFC 9112 §6.3 allows either
    "a_list_of_lengths": b"content-length: 2, 2",
    "length_negative": b"content-length: -2",
    "length_with_plus": b"content-length: +2",
    "length_hexadecimal": b"content-length: 0x2",
    "length_of_two_numbers": b"content-length: 2 2",
    "length_beyond_64_bits": b"content-length: 99999999999999999999",
    "length_empty": b"content-length:",
    "length_in_words": b"content-length: two",
    "length_after_fold": b"content-length:\r\n 2",
    "coding_identity": b"transfer-encoding: identity",
    "coding_gzip": b"transfer-encoding: gzip",
    "coding_gzip_chunked": b"transfer-encoding: gzip, chunked",  # nginx: unknown; we asked for none (TE)
    "coding_chunked_gzip": b"transfer-encoding: chunked, gzip",
    "coding_chunked_twice": b"transfer-encoding: chunked, chunked",
    "coding_in_two_headers": b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    "coding_xchunked": b"transfer-encoding: xchunked",
    "coding_quoted": b'transfer-encoding: "chunked"',
    "coding_with_parameter": b"transfer-encoding: chunked;q=1",
    "coding_after_vt": b"transfer-encoding: \x0bchunked",
    "coding_empty": b"transfer-encoding:",
    "coding_before_blank": b"transfer-encoding : chunked",
    "coding_after_fold": b"transfer-encoding:\r\n chunked",
    "header_folded": b"a: b\r\n c: d\r\ncontent-length: 2",
    "header_behind_bare_lf": b"a: b\nset-cookie: c\r\ncontent-length: 2",
    "header_behind_bare_cr": b"a: b\rset-cookie: c\r\ncontent-length: 2",
    "header_with_nul": b"a: b\0c\r\ncontent-length: 2",
    "header_with_control": b"a: b\x01c\r\ncontent-length: 2",
    "header_with_del": b"a: b\x7fc\r\ncontent-length: 2",
    "name_with_blank": b"a b: c\r\ncontent-length: 2",
    "name_before_blank": b"a : c\r\ncontent-length: 2",
    "name_empty": b": c\r\ncontent-length: 2",
    "name_beyond_ascii": b"\xc3\xa4: c\r\ncontent-length: 2",
    "no_colon": b"abc\r\ncontent-length: 2",
    "blank_first": b" a: b\r\ncontent-length: 2",
}
GARBAGE |= {name: TOP + head + b"\r\n\r\n2\r\nok\r\n0\r\n\r\n" for name, head in FRAMING.items()}


@pytest.mark.parametrize("case", GARBAGE)
async def test_what_is_no_answer_is_a_502(bench: Bench, case: str):
    """Never a part of it is relayed: none of its headers, no byte of what it calls a body."""
    got = await bench.gets(GARBAGE[case], POST)
    assert (got.status, got.reason, got.whole) == (502, "upstream_failed", True)
    assert got.all(b"set-cookie") == got.all(b"a") == []
    assert len(bench.heard) == 1  # a POST is not sent again
    assert bench.kept == 0


# ── an answer that breaks off ───────────────────────────────────────────────────────────────────────

BROKEN = {
    "length_short": (TOP + b"content-length: 100\r\n\r\nhalf", b"half"),
    "length_none": (TOP + b"content-length: 100\r\n\r\n", b""),
    "length_of_64_bits": (TOP + b"content-length: 18446744073709551615\r\n\r\nhalf", b"half"),
    "chunk_short": (CHUNKED + b"64\r\nhalf", b"half"),
    "chunk_whole": (CHUNKED + b"4\r\nhalf\r\n", b"half"),
    "no_chunk": (CHUNKED, b""),
    "last_chunk_short": (CHUNKED + b"4\r\nhalf\r\n0\r\n", b"half"),
    "in_trailers": (CHUNKED + b"4\r\nhalf\r\n0\r\nx-sum: 1\r\n", b"half"),
}
BROKEN_CHUNKS = {
    "size_of_letters": b"zz\r\nok\r\n0\r\n\r\n",
    "size_negative": b"-2\r\nok\r\n0\r\n\r\n",
    "size_0x": b"0x2\r\nok\r\n0\r\n\r\n",
    "size_beyond_64_bits": b"fffffffffffffffff\r\nok\r\n0\r\n\r\n",
    "size_empty": b"\r\nok\r\n0\r\n\r\n",
    "size_before_blank": b"2 \r\nok\r\n0\r\n\r\n",
    "size_after_blank": b" 2\r\nok\r\n0\r\n\r\n",
    "size_too_small": b"1\r\nok\r\n0\r\n\r\n",
    "size_too_large": b"3\r\nok\r\n0\r\n\r\n",
    "bare_lf": b"2\nok\n0\n\n",
    "bare_lf_after_size": b"2\nok\r\n0\r\n\r\n",
    "bare_lf_after_data": b"2\r\nok\n0\r\n\r\n",
    "bare_lf_in_extension": b"2;a\nok\r\n0\r\n\r\n",
    "nul_in_extension": b"2;a\0\r\nok\r\n0\r\n\r\n",
    "extension_without_end": b"2;" + b"a" * 400_000,
    "trailers_without_end": b"2\r\nok\r\n0\r\n" + b"a: b\r\n" * 50_000,
    "trailer_without_colon": b"2\r\nok\r\n0\r\nbad trailer\r\n\r\n",
    "length_in_trailers": b"2\r\nok\r\n0\r\ncontent-length: 5\r\n\r\n",
}


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_answer_never_ends_well(bench: Bench, case: str, then: str):
    """The caller's connection is cut: for a length or in chunks it sees that something is missing."""
    answer, body = BROKEN[case]
    got = await bench.gets(answer, then=then)
    if then == "reset" and got.status == 502:
        return  # the reset overtook what was sent before it: nothing of the answer had come
    assert (got.status, got.whole) == (200, False)
    assert body.startswith(got.content)
    assert then == "reset" or got.content == body
    assert bench.kept == 0


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_answer_to_http_1_0_ends_in_a_reset_unless_its_length_tells(bench: Bench, case: str):
    """Without a length the end of the connection ends the answer (RFC 9112 §8): what is left is RST."""
    answer, body = BROKEN[case]
    got = await bench.gets(answer, OLD_GET)
    assert (got.status, got.whole) == (200, False)
    assert got.cut or got.all(b"content-length")
    assert body.startswith(got.content)


@pytest.mark.parametrize("request_", [GET, OLD_GET], ids=["http_1_1", "http_1_0"])
async def test_a_reset_is_not_the_end_of_an_answer_that_has_no_other(bench: Bench, request_: bytes):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(TOP + b"\r\nhalf")
        await peer.left()  # until it is reset, below

    bench.play(script)
    async with bench.connect() as raw:
        await raw.send(request_)
        seen = await raw.reader.readuntil(b"half")
        bench.upstream.peers[0].reset()
        rest = await everything(raw)
    rest.raw = seen + rest.raw
    assert (rest.status, rest.content, rest.whole) == (200, b"half", False)


@pytest.mark.parametrize("case", BROKEN_CHUNKS)
async def test_broken_chunks_are_cut(bench: Bench, case: str):
    """The head has left when they come, so it is no 502; a part that looks like data may have gone before."""
    got = await bench.gets(CHUNKED + BROKEN_CHUNKS[case], then="wait")
    assert (got.status, got.whole) == (200, False)
    assert bench.kept == 0


# ── which connections serve again ───────────────────────────────────────────────────────────────────

KEPT = {
    "length": (TOP + b"content-length: 2\r\n\r\nok", True),
    "chunks": (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", True),
    "chunks_with_trailers": (CHUNKED + b"2\r\nok\r\n0\r\na: b\r\n\r\n", True),
    "interim_before": (INTERIM["103"] + OK, True),
    "keep_alive_of_http_1_0": (
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
        True,
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", True),
    "204_with_length": (b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", False),
    "204_in_chunks": (b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n", False),
    "304": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", True),
    "an_error": (b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno", True),
    "http_1_0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", False),
    "http_1_0_in_chunks": (
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        False,
    ),
    "close": (TOP + b"connection: close\r\ncontent-length: 2\r\n\r\nok", False),
    "close_in_capitals": (TOP + b"Connection: CLOSE\r\ncontent-length: 2\r\n\r\nok", False),
    "close_among_others": (TOP + b"connection: foo, close\r\ncontent-length: 2\r\n\r\nok", False),
    "close_in_a_second": (
        TOP + b"connection: foo\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        False,
    ),
    "a_byte_too_many": (TOP + b"content-length: 2\r\n\r\nok!", False),
    "a_second_answer": (OK + OK.replace(b"ok", b"no"), False),
    "a_second_head": (OK + b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", False),
    "a_byte_after_the_chunks": (CHUNKED + b"2\r\nok\r\n0\r\n\r\n!", False),
    "a_body_after_204": (b"HTTP/1.1 204 No Content\r\n\r\nhello", False),
}


@pytest.mark.parametrize("case", KEPT)
async def test_a_connection_serves_again_only_after_a_clean_end(bench: Bench, case: str):
    """And the second call gets its own answer, also where the first brought more bytes than its own."""
    answer, kept = KEPT[case]
    bench.play(answering(answer, TOP + b"content-length: 3\r\n\r\ntwo"))
    async with bench.connect() as raw:
        await raw.send(GET)
        first = await raw.reply()
        await raw.send(GET)
        second = await raw.reply()
    assert first.body in (b"ok", b"no", b"")
    assert (second.status, second.body) == (200, b"two")
    assert bench.upstream.connections == (1 if kept else 2)


# ── connections that died while they were kept ──────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_safe_call_is_sent_once_more_when_its_connection_was_dead(bench: Bench, method: str):
    bench.play(dies_on_second)
    async with bench.connect() as raw:
        await raw.send(GET)
        await raw.reply()
        await raw.send(closing(GET).replace(b"GET", method.encode()))
        got = await everything(raw)
    assert (got.status, bench.upstream.connections) == (200, 2)
    assert sum(heard.line.startswith(method.encode()) for heard in bench.heard[1:]) == 2


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PURGE"])
async def test_no_other_call_is_ever_sent_twice(bench: Bench, method: str):
    """nginx: proxy_next_upstream without non_idempotent. PUT and DELETE neither: only what is safe."""
    bench.play(dies_on_second)
    async with bench.connect() as raw:
        await raw.send(GET)
        await raw.reply()
        await raw.send(closing(POST).replace(b"POST", method.encode()))
        got = await everything(raw)
    assert (got.status, got.reason) == (502, "upstream_failed")
    assert len(bench.heard) == 2


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("request_", [GET, POST], ids=["get", "post"])
async def test_a_connection_whose_end_has_arrived_is_not_used(bench: Bench, request_: bytes, how: str):
    """Nothing was sent on it yet, so that a POST too goes to a new one, once."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        if peer.number == 0:
            if how == "reset":
                peer.reset()
            return
        await peer.left()

    bench.play(script)
    async with bench.connect() as raw:
        await raw.send(GET)
        await raw.reply()
        await bench.upstream.peers[0].writer.wait_closed()
        await raw.send(request_)
        reply = await raw.reply()
    assert (reply.status, reply.body, bench.upstream.connections, len(bench.heard)) == (200, b"ok", 2, 2)


async def test_a_post_whose_answer_never_came_is_not_sent_again_on_a_new_connection(bench: Bench):
    got = await bench.gets(b"", POST)
    assert (got.status, len(bench.heard)) == (502, 1)


# ── an answer before the request is sent ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("framing", ["content-length: 1000000", "transfer-encoding: chunked"])
async def test_an_answer_that_comes_before_the_end_of_the_request_is_relayed(bench: Bench, framing: str):
    """The rest of the request is not awaited, and the upstream's connection not kept."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await peer.left()

    bench.play(script)
    async with bench.connect() as raw:
        first = b"5\r\nhello\r\n" if "chunked" in framing else b"hello"
        await raw.send(f"POST /x HTTP/1.1\r\nhost: proxy\r\n{framing}\r\n\r\n".encode() + first)
        reply = await raw.reply()
    assert (reply.status, reply.body, bench.kept) == (413, b"big", 0)
    assert bench.in_flight == 0


async def test_the_proxy_is_well_after_all_this(bench: Bench):
    await bench.serves()
