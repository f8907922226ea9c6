"""One request or none: whatever a caller's bytes look like, the upstream never sees two where we saw one.

Each case is followed by a second request on the same connection. Where it is refused, the connection ends
and nothing reaches the upstream; where it is taken, the upstream gets exactly the request that the case
names, and then the second one; never a request that stood in a body. Where RFC 9112 leaves a choice, the case
says whose way it is.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.kit.bench import Bench, answering_ok, everything
from tests.kit.raw import connect
from tests.kit.running import running
from tests.kit.scripted import OK, Peer, Scripted, silent
from tests.kit.waiting import bounded, settled, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.conformance("framing")]

NEXT = b"GET /next HTTP/1.1\r\nhost: proxy\r\nconnection: close\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: proxy\r\n\r\n"

CHUNKED = b"transfer-encoding: chunked"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"
LONG = b"content-length: 5"


def post(*fields: bytes, body: bytes = b"", line: bytes = b"POST /x HTTP/1.1") -> bytes:
    return b"\r\n".join([line, b"host: proxy", *fields, b"", b""]) + body


def get(target: bytes, *fields: bytes) -> bytes:
    return post(*fields, line=b"GET %b HTTP/1.1" % target)


async def answers_to(bench: Bench, request: bytes) -> list[int]:
    """Send a request and the next one at once; the status of each answer, to the connection's end."""
    bench.play(answering_ok)
    async with bench.connect() as raw:
        await raw.send(request + NEXT)
        got = await everything(raw)
    assert not any(b"/smuggled" in heard.line for heard in bench.heard)
    return statuses(got.raw)


def statuses(raw: bytes) -> list[int]:
    """Of all the answers in these bytes."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", raw)]


# ── what is no request, or more than one ────────────────────────────────────────────────────────────

REFUSED = {
    # both framings, RFC 9112 §6.1: nginx and Envoy answer 400
    "length_then_chunked": post(LONG, CHUNKED, body=HELLO),
    "chunked_then_length": post(CHUNKED, LONG, body=HELLO),
    "length_0_then_chunked": post(b"content-length: 0", CHUNKED, body=HELLO),
    "both_and_smuggled": post(b"content-length: 5", CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "both_and_an_upgrade": post(LONG, CHUNKED, b"connection: upgrade", b"upgrade: h2c", body=HELLO),
    "chunked_length_and_upgrade": post(CHUNKED, LONG, b"connection: upgrade", b"upgrade: h2c", body=HELLO),
    "both_in_http_1_0": post(CHUNKED, LONG, line=b"POST /x HTTP/1.0", body=HELLO),
    # Transfer-Encoding in disguise
    "coding_blank_before_the_colon": post(b"transfer-encoding : chunked", body=HELLO),
    "coding_tab_before_the_colon": post(b"transfer-encoding\t: chunked", body=HELLO),
    "coding_folded": post(b"transfer-encoding:\r\n chunked", body=HELLO),
    "coding_behind_a_bare_lf": post(b"x: y\ntransfer-encoding: chunked", body=HELLO),
    "coding_behind_a_bare_cr": post(b"x: y\rtransfer-encoding: chunked", body=HELLO),
    "coding_behind_a_nul": post(b"x: y\0\r\ntransfer-encoding: chunked", body=HELLO),
    "coding_on_a_folded_line": post(b"x: y\r\n transfer-encoding: chunked", body=HELLO),
    "coding_after_a_vertical_tab": post(b"transfer-encoding: \x0bchunked", body=HELLO),
    "coding_before_a_vertical_tab": post(b"transfer-encoding: chunked\x0b", body=HELLO),
    "coding_after_a_form_feed": post(b"transfer-encoding:\x0cchunked", body=HELLO),
    "coding_before_a_nul": post(b"transfer-encoding: chunked\0", body=HELLO),
    "coding_empty": post(b"transfer-encoding:", body=HELLO),
    "coding_chunked_not_last": post(b"transfer-encoding: chunked, identity", body=HELLO),
    "coding_chunked_and_a_comma": post(b"transfer-encoding: chunked,", body=HELLO),
    "coding_twice": post(CHUNKED, CHUNKED, body=HELLO),
    "coding_twice_the_second_unknown": post(CHUNKED, b"transfer-encoding: x", body=HELLO),
    "coding_with_a_high_byte_in_its_name": post(b"transfer-enc\xf6ding: chunked", body=HELLO),
    # Content-Length: nginx refuses all of these; so does Envoy, but for an equal pair
    "length_signed": post(b"content-length: +5", body=b"hello"),
    "length_negative": post(b"content-length: -5", body=b"hello"),
    "length_hexadecimal": post(b"content-length: 0x5", body=b"hello"),
    "length_octal_prefix": post(b"content-length: 0o5", body=b"hello"),
    "length_fraction": post(b"content-length: 5.0", body=b"hello"),
    "length_exponent": post(b"content-length: 5e0", body=b"hello"),
    "length_underscore": post(b"content-length: 1_0", body=b"hello67890"),
    "length_two_numbers": post(b"content-length: 5 5", body=b"hello"),
    "length_empty": post(b"content-length:", body=b"hello"),
    "length_blank": post(b"content-length: ", body=b"hello"),
    "length_words": post(b"content-length: five", body=b"hello"),
    "length_list_of_equals": post(b"content-length: 5, 5", body=b"hello"),
    "length_list": post(b"content-length: 5, 6", body=b"hello"),
    "length_twice_equal": post(LONG, LONG, body=b"hello"),
    "length_twice": post(LONG, b"content-length: 6", body=b"hello"),
    "length_twice_the_first_0": post(b"content-length: 0", b"content-length: 40", body=SMUGGLED),
    "length_in_foreign_digits": post("content-length: \u0665".encode(), body=b"hello"),
    "length_before_a_form_feed": post(b"content-length: 5\x0c", body=b"hello"),
    "length_blank_before_the_colon": post(b"content-length : 5", body=b"hello"),
    "length_folded": post(b"content-length:\r\n 5", body=b"hello"),
    "length_over_64_bits": post(b"content-length: 18446744073709551621", body=b"hello"),
    "length_of_64_bits": post(b"content-length: 18446744073709551615", body=b"hello"),
    "length_of_2_to_the_63": post(b"content-length: 9223372036854775808", body=b"hello"),  # nginx's off_t
    # lines
    "bare_lf_everywhere": b"POST /x HTTP/1.1\nhost: proxy\ncontent-length: 5\n\nhello",
    "bare_lf_after_the_request_line": b"GET /x HTTP/1.1\nhost: proxy\r\n\r\n",
    "bare_lf_after_a_header": b"GET /x HTTP/1.1\r\nhost: proxy\nx: y\r\n\r\n",
    "bare_lf_at_the_end": b"POST /x HTTP/1.1\r\nhost: proxy\r\ncontent-length: 5\r\n\nhello",
    "bare_cr_at_the_end": b"POST /x HTTP/1.1\r\nhost: proxy\r\ncontent-length: 5\r\n\rhello",
    "bare_cr_in_a_value": post(b"x: a\rb"),
    "two_crs": post(b"x: a\r"),
    "folded_header": post(b"x: a\r\n b"),
    "folded_with_a_tab": post(b"x: a\r\n\tb"),
    "blank_before_the_first_header": b"GET /x HTTP/1.1\r\n host: proxy\r\n\r\n",
    # names and values
    "no_colon": post(b"xyz"),
    "no_name": post(b": b"),
    "blank_in_a_name": post(b"x y: b"),
    "blank_after_a_name": post(b"x : b"),
    "bracket_in_a_name": post(b"x(: b"),
    "quote_in_a_name": post(b'x": b'),
    "at_in_a_name": post(b"x@: b"),
    "high_byte_in_a_name": post(b"x\xe9: b"),
    "nul_in_a_name": post(b"x\0: b"),
    "control_in_a_name": post(b"x\x01: b"),
    "delete_in_a_name": post(b"x\x7f: b"),
    "nul_in_a_value": post(b"x: a\0b"),
    "bell_in_a_value": post(b"x: a\x07b"),
    "backspace_in_a_value": post(b"x: a\x08b"),
    "vertical_tab_in_a_value": post(b"x: a\x0bb"),
    "escape_in_a_value": post(b"x: a\x1b[31mb"),
    "delete_in_a_value": post(b"x: a\x7fb"),
    # the request line
    "method_in_small_letters": post(line=b"get /x HTTP/1.1"),
    "method_unknown": post(line=b"SMUGGLE /x HTTP/1.1"),
    "method_with_a_nul": post(line=b"GE\0T /x HTTP/1.1"),
    "method_with_a_colon": post(line=b"GET: /x HTTP/1.1"),
    "no_target": post(line=b"GET HTTP/1.1"),
    "an_empty_target": post(line=b"GET  HTTP/1.1"),
    "a_relative_target": get(b"x"),
    "a_backslash_first": get(b"\\x"),
    "blank_in_the_target": get(b"/a b"),
    "blank_in_the_query": get(b"/a?b c"),
    "tab_in_the_target": get(b"/a\tb"),
    "cr_in_the_target": get(b"/a\rb"),
    "lf_in_the_target": get(b"/a\nx: y"),
    "crlf_in_the_target": get(b"/a HTTP/1.1\r\nx: y\r\n\r\n"),
    "nul_in_the_target": get(b"/a\0b"),
    "control_in_the_target": get(b"/a\x01b"),
    "delete_in_the_target": get(b"/a\x7fb"),
    "high_byte_in_the_target": get(b"/a\xe9b"),  # Envoy: 400; nginx forwards it
    "high_byte_in_the_query": get(b"/a?\xe9"),
    "blank_before_the_method": post(line=b" GET /x HTTP/1.1"),
    "no_version": b"GET /x\r\n\r\n",  # HTTP/0.9; nginx serves it, Envoy does not
    "version_in_small_letters": post(line=b"GET /x http/1.1"),
    "version_unknown": post(line=b"GET /x HTTP/1.2"),
    "version_padded": post(line=b"GET /x HTTP/01.1"),
    "version_longer": post(line=b"GET /x HTTP/1.11"),
    "version_and_a_blank": post(line=b"GET /x HTTP/1.1 "),
    "version_without_a_minor": post(line=b"GET /x HTTP/1"),
    "version_of_another_protocol": post(line=b"GET /x ICE/1.0"),
    "http_2_preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls_hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50,
    # authority-form, and absolute-form that is none
    "connect": post(line=b"CONNECT other.test:443 HTTP/1.1"),
    "connect_with_a_body": post(
        b"content-length: 40", line=b"CONNECT other.test:443 HTTP/1.1", body=SMUGGLED
    ),
    "authority_without_connect": get(b"other.test:80"),
    "absolute_without_a_host": get(b"http:///x"),
    "absolute_of_a_file": get(b"file:///etc/passwd"),
    "absolute_with_an_impossible_port": get(b"http://other.test:99999/x"),
    "absolute_with_a_broken_address": get(b"http://[::1/x"),
    # Host, RFC 9112 §3.2
    "no_host": b"GET /x HTTP/1.1\r\n\r\n",
    "two_hosts": get(b"/x", b"host: other"),
    "two_equal_hosts": get(b"/x", b"host: proxy"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_not_one_request_is_refused_and_ends_the_connection(bench: Bench, case: str):
    [status] = [status for status in await answers_to(bench, REFUSED[case]) if status != 200]
    assert status in (400, 505)
    assert bench.heard == []


NOT_SPOKEN = {
    # RFC 9112 §6.1: a coding that is not understood is 501, as in nginx and Envoy
    "x_chunked": (post(b"transfer-encoding: xchunked", body=HELLO), 501),
    "identity": (post(b"transfer-encoding: identity", body=HELLO), 501),  # of RFC 2616; gone since 7230
    "gzip": (post(b"transfer-encoding: gzip", body=HELLO), 501),
    "gzip_then_chunked": (post(b"transfer-encoding: gzip, chunked", body=HELLO), 501),
    "identity_then_chunked": (post(b"transfer-encoding: identity, chunked", body=HELLO), 501),
    "chunked_in_quotes": (post(b'transfer-encoding: "chunked"', body=HELLO), 501),
    "chunked_with_a_parameter": (post(b"transfer-encoding: chunked;q=1", body=HELLO), 501),
    "a_comma_and_chunked": (post(b"transfer-encoding: ,chunked", body=HELLO), 501),
    "chunked_and_a_blank": (post(b"transfer-encoding: chunked ", body=HELLO), 501),
    "chunked_and_a_tab": (post(b"transfer-encoding: chunked\t", body=HELLO), 501),
    "an_unknown_one_first": (post(b"transfer-encoding: x", CHUNKED, body=HELLO), 501),
    "chunked_in_http_1_0": (post(CHUNKED, line=b"POST /x HTTP/1.0", body=HELLO), 501),  # as Envoy
    "http_2_0": (post(line=b"GET /x HTTP/2.0"), 505),  # nginx: 505
    "http_0_9_with_headers": (post(line=b"GET /x HTTP/0.9"), 505),
}


@pytest.mark.parametrize("case", NOT_SPOKEN)
async def test_a_coding_or_version_that_is_not_spoken_is_said_to_be_none(bench: Bench, case: str):
    request, status = NOT_SPOKEN[case]
    assert await answers_to(bench, request) == [status]
    assert bench.heard == []


# ── what is refused by its meaning: the framing is clear, and the connection goes on ────────────────

UNSENDABLE = {
    "a_fragment": get(b"/a#b"),  # Envoy: 400. Two servers would not see the same path
    "a_fragment_that_climbs": get(b"/a#/../../b"),
    "leads_out": get(b"/a/../../x"),
    "leads_out_in_disguise": get(b"/a/%2e%2e/%2e%2e/x"),
    "connect_to_a_path": post(line=b"CONNECT /x HTTP/1.1"),
    "trace": post(line=b"TRACE /x HTTP/1.1"),  # nginx: 405; it would show the credentials we add
    "a_blank_in_the_host": b"GET /x HTTP/1.1\r\nhost: a b\r\n\r\n",
    "a_slash_in_the_host": b"GET /x HTTP/1.1\r\nhost: a/b\r\n\r\n",
    "a_user_in_the_host": b"GET /x HTTP/1.1\r\nhost: a@b\r\n\r\n",
    "markup_in_the_host": b"GET /x HTTP/1.1\r\nhost: <script>\r\n\r\n",
    "every_resource": post(line=b"OPTIONS * HTTP/1.1"),  # no route of ours: 404
    "get_every_resource": get(b"*"),
}


@pytest.mark.parametrize("case", UNSENDABLE)
async def test_what_must_not_be_forwarded_is_refused_and_the_next_request_served(bench: Bench, case: str):
    first, second = await answers_to(bench, UNSENDABLE[case])
    assert first in (400, 404)
    assert second == 200
    assert [heard.line for heard in bench.heard] == [b"GET /next HTTP/1.1"]


# ── what is one request ─────────────────────────────────────────────────────────────────────────────


class One(NamedTuple):
    """A request, and how the upstream sees it."""

    request: bytes
    line: bytes = b"POST /x HTTP/1.1"
    body: bytes = b""


def taken(target: bytes, as_: bytes) -> One:
    return One(get(target), b"GET %b HTTP/1.1" % as_)


TAKEN = {
    "length": One(post(LONG, body=b"hello"), body=b"hello"),
    "length_0": One(post(b"content-length: 0")),
    "length_with_zeros_before": One(post(b"content-length: 0005", body=b"hello"), body=b"hello"),
    "length_amid_blanks": One(post(b"content-length: \t 5 \t", body=b"hello"), body=b"hello"),
    "length_without_a_blank": One(post(b"content-length:5", body=b"hello"), body=b"hello"),
    "length_and_a_request_inside": One(
        post(b"content-length: %d" % len(SMUGGLED), body=SMUGGLED), body=SMUGGLED
    ),
    "length_named_by_connection": One(
        post(LONG, b"connection: content-length", body=b"hello"), body=b"hello"
    ),
    "chunks": One(post(CHUNKED, body=HELLO), body=b"hello"),
    "no_chunks": One(post(CHUNKED, body=b"0\r\n\r\n")),
    "chunks_and_a_request_inside": One(
        post(CHUNKED, body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)), body=SMUGGLED
    ),
    "chunked_in_capitals": One(post(b"Transfer-Encoding: CHUNKED", body=HELLO), body=b"hello"),
    "chunked_after_a_tab": One(post(b"transfer-encoding:\tchunked", body=HELLO), body=b"hello"),
    "chunked_named_by_connection": One(
        post(CHUNKED, b"connection: transfer-encoding", body=HELLO), body=b"hello"
    ),
    "chunk_size_in_capitals": One(post(CHUNKED, body=b"A\r\nhellohello\r\n0\r\n\r\n"), body=b"hellohello"),
    "chunk_size_with_zeros_before": One(post(CHUNKED, body=b"00005\r\nhello\r\n000\r\n\r\n"), body=b"hello"),
    "chunk_size_with_many_zeros": One(
        post(CHUNKED, body=b"0" * 200 + b"5\r\nhello\r\n0\r\n\r\n"), body=b"hello"
    ),
    "chunk_extension": One(post(CHUNKED, body=b"5;a=b\r\nhello\r\n0\r\n\r\n"), body=b"hello"),
    "chunk_extension_quoted": One(post(CHUNKED, body=b'5;a="b c"\r\nhello\r\n0;z\r\n\r\n'), body=b"hello"),
    "chunk_extension_of_60_kb": One(
        post(CHUNKED, body=b"5;" + b"a" * 60_000 + b"\r\nhello\r\n0\r\n\r\n"), body=b"hello"
    ),
    "trailers": One(post(CHUNKED, body=b"5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"), body=b"hello"),
    "a_trailer_that_names_a_host": One(
        post(CHUNKED, body=b"5\r\nhello\r\n0\r\nhost: other\r\n\r\n"), body=b"hello"
    ),
    # CGI and WSGI read these as Content-Length and Transfer-Encoding: dropped, as nginx does
    "length_with_an_underscore": One(post(b"content_length: 5")),
    "coding_with_an_underscore": One(post(b"transfer_encoding: chunked")),
    "a_get_with_a_body": One(
        post(LONG, line=b"GET /x HTTP/1.1", body=b"hello"), b"GET /x HTTP/1.1", b"hello"
    ),
    "a_get_with_a_request_as_its_body": One(
        post(b"content-length: %d" % len(SMUGGLED), line=b"GET /x HTTP/1.1", body=SMUGGLED),
        b"GET /x HTTP/1.1",
        SMUGGLED,
    ),
    "empty_lines_before": One(b"\r\n\r\n" + get(b"/x"), b"GET /x HTTP/1.1"),  # RFC 9112 §2.2
    "bare_lf_before": One(b"\n" + get(b"/x"), b"GET /x HTTP/1.1"),
    "two_blanks_after_the_method": One(post(line=b"GET  /x HTTP/1.1"), b"GET /x HTTP/1.1"),  # as nginx
    "two_blanks_after_the_target": One(post(line=b"GET /x  HTTP/1.1"), b"GET /x HTTP/1.1"),
    "high_bytes_in_a_value": One(get(b"/x", b"x: \xe9\xff"), b"GET /x HTTP/1.1"),  # obs-text
    "an_empty_host": One(b"GET /x HTTP/1.1\r\nhost:\r\n\r\n", b"GET /x HTTP/1.1"),  # RFC 9112 §3.2
    "absolute": taken(b"http://other.test/x?y", b"/x?y"),
    "absolute_without_a_path": taken(b"http://other.test", b"/"),
    "absolute_with_a_query_only": taken(b"http://other.test?y", b"/?y"),
    "absolute_with_a_user": taken(b"http://u:p@other.test/x", b"/x"),
    "an_escaped_line_break": taken(b"/a%0d%0ax:y", b"/a%0d%0ax:y"),
    "an_escaped_nul": taken(b"/a%00b", b"/a%00b"),
    "a_network_path": taken(b"//other.test/x", b"//other.test/x"),
    "a_colon_first": taken(b"/:80/x", b"/:80/x"),
    "h2c_offered": One(
        get(b"/x", b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AAMAAABk"),
        b"GET /x HTTP/1.1",
    ),
    "h2c_offered_with_a_body": One(
        post(b"connection: upgrade", b"upgrade: h2c", LONG, body=b"hello"), body=b"hello"
    ),
    "h2c_offered_with_chunks": One(
        post(b"connection: upgrade", b"upgrade: h2c", CHUNKED, body=HELLO), body=b"hello"
    ),
    "another_protocol_offered": One(
        get(b"/x", b"connection: upgrade", b"upgrade: foo/2, websocket"), b"GET /x HTTP/1.1"
    ),
    "an_unknown_expectation": One(post(b"expect: tea", LONG, body=b"hello"), body=b"hello"),  # as nginx
}


@pytest.mark.parametrize("case", TAKEN)
async def test_what_is_one_request_reaches_the_upstream_as_that_one(bench: Bench, case: str):
    one = TAKEN[case]
    assert await answers_to(bench, one.request) == [200, 200]
    first, second = bench.heard
    assert (first.line, first.body) == (one.line, one.body)
    assert second.line == b"GET /next HTTP/1.1"
    framing = first.all(b"content-length") + first.all(b"transfer-encoding")
    assert len(framing) == int(bool(one.body) or first.line.startswith(b"POST"))
    assert first.raw.count(b"\r\n\r\n") == 1
    assert first.raw.count(b"\n") == first.raw.count(b"\r") == first.raw.count(b"\r\n")
    gone = (b"trailer", b"upgrade", b"http2-settings", b"expect", b"content_length", b"transfer_encoding")
    assert not any(first.all(name) for name in gone)


# ── a body that breaks off while its call runs ──────────────────────────────────────────────────────

BROKEN = {
    "size_hexadecimal_prefix": b"0x5\r\nhello\r\n",
    "size_signed": b"+5\r\nhello\r\n",
    "size_negative": b"-5\r\nhello\r\n",
    "size_underscore": b"1_0\r\nhello67890hello\r\n",
    "size_fraction": b"5.0\r\nhello\r\n",
    "size_list": b"5,5\r\nhello\r\n",
    "size_empty": b"\r\nhello\r\n",
    "size_no_number": b"g\r\nhello\r\n",
    "size_after_a_blank": b" 5\r\nhello\r\n",
    "size_before_a_blank": b"5 \r\nhello\r\n",  # Envoy takes it
    "size_before_a_tab": b"5\t\r\nhello\r\n",
    "size_over_64_bits": b"ffffffffffffffff5\r\nhello\r\n",
    "size_ends_in_bare_lf": b"5\nhello\r\n",  # TERM.EXT and its kin: where a line ends must be agreed
    "size_ends_in_bare_cr": b"5\rhello\r\n",
    "size_cr_and_more": b"5\rX\nhello\r\n",
    "data_ends_in_bare_lf": b"5\r\nhello\n",
    "data_longer_than_said": b"5\r\nhelloX\r\n",
    "data_shorter_than_said": b"6\r\nhello\r\n",
    "data_followed_by_a_request": b"5\r\nhello" + SMUGGLED,
    "extension_empty": b"5;\r\nhello\r\n",
    "extension_after_a_blank": b"5 ;a=b\r\nhello\r\n",  # RFC 9112 allows it, nginx and Envoy too; llhttp not
    "extension_with_bare_lf": b"5;a\nb\r\nhello\r\n",
    "extension_with_bare_cr": b"5;a\rb\r\nhello\r\n",
    "extension_with_a_line_in_quotes": b'5;a="\r\n"\r\nhello\r\n',
    "extension_with_a_control": b"5;a=\x01\r\nhello\r\n",
    "extension_with_a_nul": b"5;\0\r\nhello\r\n",
    "last_ends_in_bare_lf": b"5\r\nhello\r\n0\n\r\n",
    "last_without_its_line": b"5\r\nhello\r\n0\r\n\n",
    "last_with_bare_cr": b"5\r\nhello\r\n0\r\n\r",
    "trailer_folded": b"5\r\nhello\r\n0\r\nx: y\r\n z\r\n\r\n",
    "trailer_with_bare_lf": b"5\r\nhello\r\n0\r\nx: y\n\r\n",
    "trailer_blank_before_the_colon": b"5\r\nhello\r\n0\r\nx : y\r\n\r\n",
    "trailer_without_a_colon": b"5\r\nhello\r\n0\r\nxyz\r\n\r\n",
    "trailer_with_a_coding": b"5\r\nhello\r\n0\r\ntransfer-encoding: chunked\r\n\r\n",
    "trailer_with_a_length": b"5\r\nhello\r\n0\r\ncontent-length: 40\r\n\r\n",
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("at_once", [True, False], ids=["at_once", "later"])
async def test_a_body_that_breaks_off_is_a_400_and_its_call_is_given_up(
    bench: Bench, case: str, at_once: bool
):
    """The upstream gets no last chunk: it must not take for whole what the caller never ended."""
    whole = []

    async def script(peer: Peer) -> None:
        whole.append(await peer.request())
        await peer.send(OK)

    bench.play(script)
    head = post(CHUNKED)
    async with bench.connect() as raw:
        if at_once:
            await raw.send(head + BROKEN[case] + NEXT)
        else:
            await raw.send(head + b"2\r\nhi\r\n")
            await until(lambda: bench.heard)
            await raw.send(BROKEN[case] + NEXT)
        got = await everything(raw)
    assert statuses(got.raw) == [400]
    assert [heard.line for heard in bench.heard] in ([], [b"POST /x HTTP/1.1"])
    await until(lambda: bench.in_flight == 0 and all(peer.reader.at_eof() for peer in bench.upstream.peers))
    assert whole == []


async def test_a_caller_that_goes_on_sending_still_finds_out_why(bench: Bench):
    """Bytes that reach a closed socket are answered by RST, which takes away what was not yet read."""
    bench.play(silent)
    loop, address = asyncio.get_running_loop(), urlsplit(bench.proxy.url)
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (address.hostname, address.port))
        await loop.sock_sendall(sock, post(CHUNKED, body=b"2\r\nhi\r\n"))
        await until(lambda: bench.heard)
        await loop.sock_sendall(sock, b"nonsense\r\n" + b"a" * 1_000_000)
        await until(lambda: bench.in_flight == 0)
        await loop.sock_sendall(sock, b"a" * 1_000_000)
        assert statuses(await bounded(loop.sock_recv(sock, 65536))) == [400]


MCP = """
upstreams: {{up: {{url: '{url}', dialect: mcp, breaker: off}}}}
routes: [{{name: mcp, path: /mcp, upstream: up}}]
"""


async def test_a_body_that_breaks_off_while_it_is_read_for_the_decision_ends_the_wait():
    async with Scripted(answering_ok) as upstream, running(MCP.format(url=upstream.url)) as proxy:
        pipeline = proxy.proxy._pipeline
        async with connect(proxy.url) as raw:
            await raw.send(post(CHUNKED, line=b"POST /mcp HTTP/1.1", body=b"2\r\n{}\r\n"))
            await until(lambda: pipeline._running)
            await raw.send(b"nonsense\r\n")
            assert (await raw.reply()).status == 400
            assert await settled(lambda: pipeline._running) == 0
    assert upstream.requests == []


async def test_a_body_that_breaks_off_behind_another_call_waits_for_its_turn_to_be_refused(bench: Bench):
    bench.play(answering_ok)
    async with bench.connect() as raw:
        await raw.send(get(b"/a") + get(b"/b") + post(CHUNKED, body=b"5\r\nhelloX\r\n"))
        assert [(await raw.reply()).status for _ in range(3)] == [200, 200, 400]
        assert await raw.is_closed()
    assert [heard.line for heard in bench.heard] == [b"GET /a HTTP/1.1", b"GET /b HTTP/1.1"]


async def test_a_body_that_breaks_off_under_an_answer_cuts_that_answer(bench: Bench):
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await peer.left()

    bench.play(script)
    async with bench.connect() as raw:
        await raw.send(post(CHUNKED, body=b"2\r\nhi\r\n"))
        assert b"half" in await raw.reader.readuntil(b"half")
        await raw.send(b"nonsense\r\n")
        assert await raw.is_closed()


async def test_what_follows_the_last_request_of_a_connection_is_not_looked_at(bench: Bench):
    """RFC 9112 §9.6. A second answer behind `connection: close` would belong to nothing."""
    for last in (
        b"GET /x HTTP/1.1\r\nhost: proxy\r\nconnection: close\r\n\r\n",
        b"GET /x HTTP/1.0\r\n\r\n",
        post(b"connection: close", LONG, body=b"hello"),
    ):
        bench.play(answering_ok)
        async with bench.connect() as raw:
            await raw.send(last + SMUGGLED + b"\0nonsense")
            got = await everything(raw)
        assert statuses(got.raw) == [200]
        assert len(bench.heard) == 1


async def test_a_hundred_offered_upgrades_in_one_piece_are_declined_one_by_one(bench: Bench):
    offered = post(b"connection: upgrade", b"upgrade: h2c", CHUNKED, body=HELLO)
    bench.play(answering_ok)
    async with bench.connect() as raw:
        await raw.send(offered * 99 + NEXT)
        got = await everything(raw)
    assert statuses(got.raw) == [200] * 100
    assert [heard.body for heard in bench.heard] == [b"hello"] * 99 + [b""]


# ── the way back: nothing that a caller says splits an answer ───────────────────────────────────────

REFLECTED = b"%0d%0aset-cookie:%20a=b%0d%0a%0d%0a<script>"


SPENT = """
upstreams: {{up: {{url: '{url}', dialect: rest, breaker: off}}}}
routes:
  - name: tools
    path: "/tools/{{tool}}"
    upstream: up
    tools: {{"*": {{buckets: [{{rate: 1 request/day}}]}}}}
"""


@pytest.mark.parametrize(
    "request_",
    [
        get(b"/tools/" + REFLECTED),
        get(b"/tools/" + REFLECTED, b"x-caller-id: <script>"),
        get(b"/tools/a", b"x-deadline-ms: <script>"),
        get(b"/tools/a", b"x-priority: <script>", b"x-run-id: <script>"),
        get(b"/<script>" + REFLECTED),
        get(b"/tools/<script>/%2e%2e/%2e%2e/" + REFLECTED),
        b"GET /tools/a HTTP/1.1\r\nx: proxy\r\nhost: <script>\r\n\r\n",
        get(b"/tools/a", b"x-<script>: a"),
    ],
    ids=["tool", "caller", "deadline", "priority", "path", "climbing", "host", "header"],
)
async def test_no_value_of_a_callers_stands_unescaped_in_an_answer_of_ours(request_: bytes):
    async with Scripted(answering_ok) as upstream, running(SPENT.format(url=upstream.url)) as proxy:
        async with connect(proxy.url) as raw:  # the tool's allowance goes to this one
            await raw.send(request_)
            await raw.reply()
        async with connect(proxy.url) as raw:
            await raw.send(request_.replace(b"proxy", b"proxy\r\nconnection: close", 1))
            got = await everything(raw)
    assert len(statuses(got.raw)) == 1
    assert got.status in (400, 404, 429)
    assert got.all(b"set-cookie") == []
    assert b"json" in got.all(b"content-type")[0], "which no browser takes for a page"
    assert json.loads(got.body)
    assert len(upstream.requests) <= 1
