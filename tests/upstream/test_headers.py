"""The head that is sent: one unambiguous request, with our credentials and never the caller's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream import Request, UnsendableRequest
from proxy.upstream.headers import RequestHead

PLAIN = RequestHead(b"api.test", {})
KEYED = RequestHead(b"api.test", {"Authorization": "Bearer ours"})


def fields(head: bytes) -> list[tuple[bytes, bytes]]:
    assert head.endswith(b"\r\n\r\n")
    pairs = [line.partition(b": ") for line in head[:-4].split(b"\r\n")[1:]]
    return [(name, value) for name, _, value in pairs]


def sent(headers: list[tuple[bytes, bytes]], writer: RequestHead = PLAIN) -> list[tuple[bytes, bytes]]:
    own = {b"x-forwarded-proto", b"content-length"}
    head = writer.write(Request(b"POST", b"/", headers, body=b"{}"))
    return [field for field in fields(head) if field[0] not in own]


def test_the_whole_head():
    request = Request(
        b"POST", b"/v1/x?q=%2f", [(b"host", b"proxy:1"), (b"accept", b"*/*")], body=b"{}", peer=b"10.0.0.1"
    )
    assert KEYED.write(request) == (
        b"POST /v1/x?q=%2f HTTP/1.1\r\nhost: api.test\r\nauthorization: Bearer ours\r\naccept: */*\r\n"
        b"x-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: proxy:1\r\n"
        b"content-length: 2\r\n\r\n"
    )


def test_hop_by_hop_fields_are_not_for_the_upstream():
    headers = [
        (b"connection", b"keep-alive, X-Mine"),
        (b"keep-alive", b"timeout=5"),
        (b"x-mine", b"1"),
        (b"te", b"trailers"),
        (b"trailer", b"x"),
        (b"upgrade", b"h2c"),
        (b"http2-settings", b"x"),
        (b"proxy-authorization", b"Basic x"),
        (b"proxy-connection", b"keep-alive"),
        (b"expect", b"100-continue"),
        (b"transfer-encoding", b"chunked"),
        (b"x-run-id", b"r1"),
    ]
    assert sent(headers) == [(b"host", b"api.test"), (b"x-run-id", b"r1")]


def test_connection_cannot_name_what_we_add():
    headers = [(b"connection", b"host, authorization, content-length, x-forwarded-for"), (b"x-a", b"1")]
    assert sent(headers, KEYED) == [
        (b"host", b"api.test"),
        (b"authorization", b"Bearer ours"),
        (b"x-a", b"1"),
    ]


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"])
def test_the_callers_key_is_sent_only_if_we_hold_none(name: bytes):
    assert (name, b"theirs") in sent([(name, b"theirs")])
    assert sent([(name, b"theirs")], KEYED) == [(b"host", b"api.test"), (b"authorization", b"Bearer ours")]


def test_the_proxys_own_headers_pass():
    headers = [(b"x-priority", b"critical"), (b"x-caller-id", b"a"), (b"x-run-id", b"r")]
    assert sent(headers, KEYED)[2:] == headers


def test_forwarded_fields_are_continued():
    headers = [
        (b"x-forwarded-for", b"1.1.1.1"),
        (b"x-forwarded-for", b"2.2.2.2"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"first.test"),
        (b"host", b"second.test"),
    ]
    behind_two = RequestHead(b"api.test", {}, trusted_hops=2)
    head = behind_two.write(Request(b"GET", b"/", headers, peer=b"3.3.3.3"))
    assert fields(head)[1:] == [
        (b"x-forwarded-for", b"1.1.1.1, 2.2.2.2, 3.3.3.3"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"first.test"),
    ]


@pytest.mark.parametrize(
    ("request_", "framing"),
    [
        (Request(b"GET", b"/", []), []),
        (Request(b"POST", b"/", []), [(b"content-length", b"0")]),
        (Request(b"GET", b"/", [], length=0), []),
        (Request(b"POST", b"/", [], body=b"abc", has_body=True), [(b"content-length", b"3")]),
        (Request(b"POST", b"/", [], length=9, has_body=True), [(b"content-length", b"9")]),
        (Request(b"POST", b"/", [], has_body=True), [(b"transfer-encoding", b"chunked")]),
        (
            Request(b"PUT", b"/", [(b"content-length", b"4"), (b"transfer-encoding", b"x")], body=b"ab"),
            [(b"content-length", b"2")],
        ),
    ],
)
def test_exactly_one_framing_and_it_is_ours(request_: Request, framing: list[tuple[bytes, bytes]]):
    head = fields(PLAIN.write(request_))
    assert [field for field in head if field[0] in (b"content-length", b"transfer-encoding")] == framing


@pytest.mark.parametrize(
    "request_",
    [
        Request(b"GET", b"/", [(b"accept", b"a\r\nx-evil: 1")]),
        Request(b"GET", b"/", [(b"accept", b"a\nb")]),
        Request(b"GET", b"/", [(b"accept", b"a\rb")]),
        Request(b"GET", b"/", [(b"accept", b"a\0b")]),
        Request(b"GET", b"/", [(b"x-new", b"a\nb")]),
        Request(b"GET", b"/", [(b"x new", b"a")]),
        Request(b"GET", b"/", [(b"transfer-encoding ", b"chunked")]),
        Request(b"GET", b"/", [(b"x:y", b"a")]),
        Request(b"GET", b"/", [(b"", b"a")]),
        Request(b"GET", b"/", [(b"host", b"a\r\nx-evil: 1")]),
        Request(b"GET", b"/", [(b"x-forwarded-for", b"a\r\nx-evil: 1")]),
        Request(b"GET", b"/ HTTP/1.1\r\nx: y", []),
        Request(b"GET", b"/a b", []),
        Request(b"GET", b"http://other.test/", []),
        Request(b"GET", b"", []),
        Request(b"CONNECT", b"/", []),
        Request(b"TRACE", b"/", []),
        Request(b"GET /", b"/", []),
    ],
)
def test_what_could_be_read_as_two_requests_is_refused(request_: Request):
    with pytest.raises(UnsendableRequest):
        PLAIN.write(request_)


def test_a_credential_that_cannot_be_sent_is_refused_at_once():
    with pytest.raises(UnsendableRequest):
        RequestHead(b"api.test", {"authorization": "Bearer a\r\nx: y"})


@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.sampled_from([b"accept", b"host", b"connection", b"x-forwarded-for", b"cookie"]),
                st.binary(max_size=8),
            ),
            st.one_of(st.sampled_from([b"a\r\nb: c", b"\r\n\r\n", b"x"]), st.binary(max_size=20)),
        ),
        max_size=6,
    )
)
def test_whatever_the_headers_one_head_is_sent_or_none(headers: list[tuple[bytes, bytes]]):
    try:
        head = KEYED.write(Request(b"POST", b"/", headers, body=b"{}", peer=b"p"))
    except UnsendableRequest:
        return
    assert head.count(b"\r\n\r\n") == 1
    assert head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n")
    names = [name for name, _ in fields(head)]
    assert names.count(b"content-length") == names.count(b"host") == names.count(b"authorization") == 1
    assert b"transfer-encoding" not in names
