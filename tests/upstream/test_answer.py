"""Bytes in, an answer out: however the bytes are cut, and whatever they are."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.answer import BODY, COMPLETE, HEAD, MOST_HEAD_BYTES, Answer

ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 5\r\n\r\nhello",
    "chunks": b"HTTP/1.1 200 OK\r\nA: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: 1\r\n\r\n",
    "interim": b"HTTP/1.1 103 Hint\r\nB: 2\r\n\r\nHTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 5\r\n\r\nhello",
}


def asked(*, bodiless: bool = False) -> Answer:
    answer = Answer()
    answer.reset(bodiless=bodiless)
    return answer


@given(st.sampled_from(sorted(ANSWERS)), st.lists(st.integers(0, 120), max_size=8))
def test_an_answer_is_the_same_however_it_is_cut(kind: str, cuts: list[int]):
    raw, answer, body = ANSWERS[kind], asked(), b""
    edges = [0, *sorted(cuts), len(raw)]
    for start, end in pairwise(edges):
        answer.feed(raw[start:end])
        body += answer.take()
    assert (answer.phase, answer.fault, answer.keep, body) == (COMPLETE, "", True, b"hello")
    assert [field for field in answer.headers if field[0] != b"content-length"] == [(b"a", b"1")]


@given(st.lists(st.binary(max_size=200), max_size=6), st.booleans())
def test_whatever_arrives_nothing_is_raised(pieces: list[bytes], bodiless: bool):
    answer = asked(bodiless=bodiless)
    for piece in pieces:
        answer.feed(piece)
    answer.eof()
    assert answer.phase in (HEAD, BODY, COMPLETE)


@given(st.sampled_from(sorted(ANSWERS)), st.data())
def test_a_damaged_answer_is_never_kept_with_a_fault(kind: str, data: st.DataObject):
    raw = bytearray(ANSWERS[kind])
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    answer = asked()
    answer.feed(bytes(raw))
    assert not (answer.fault and (answer.keep or answer.phase == COMPLETE))


def test_a_second_answer_is_nobodys():
    answer = asked()
    answer.feed(ANSWERS["length"] * 2)
    assert (answer.take(), answer.keep, answer.status) == (b"hello", False, 200)


def test_an_answer_until_the_end_is_complete_only_at_the_end():
    answer = asked()
    answer.feed(b"HTTP/1.1 200 OK\r\n\r\nhello")
    assert (answer.phase, answer.take()) == (BODY, b"hello")
    answer.eof()
    assert (answer.phase, answer.keep) == (COMPLETE, False)


def test_the_end_does_not_complete_an_answer_with_a_length():
    answer = asked()
    answer.feed(ANSWERS["length"][:-1])
    answer.eof()
    assert answer.phase == BODY


def test_an_upgrade_that_nobody_asked_for_is_offered_in_vain():
    answer = asked()
    answer.feed(
        b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: Upgrade, keep-alive\r\nContent-Length: 2\r\n\r\nok"
    )
    assert (answer.phase, answer.keep, answer.take()) == (COMPLETE, True, b"ok")


def test_a_large_body_behind_a_small_head_in_one_read_is_fine():
    answer = asked()
    answer.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000)
    assert (answer.phase, answer.fault, len(answer.take())) == (COMPLETE, "", 300_000)


@pytest.mark.parametrize("bodiless", [True, False])
def test_much_behind_an_answer_without_a_body_is_nobodys(bodiless: bool):
    answer = asked(bodiless=bodiless)
    status = b"200 OK" if bodiless else b"204 No Content"
    answer.feed(b"HTTP/1.1 %b\r\n\r\n%b" % (status, b"\r\n" * MOST_HEAD_BYTES))
    assert (answer.phase, answer.keep) == (COMPLETE, False)


def test_a_head_that_is_too_large_is_refused_even_when_it_comes_whole_with_its_body():
    answer = asked()
    answer.feed(b"HTTP/1.1 200 OK\r\nA: %b\r\nContent-Length: 2\r\n\r\nok" % (b"x" * MOST_HEAD_BYTES))
    assert "bytes of headers" in answer.fault


def test_trailers_and_chunk_extensions_without_end_are_refused():
    for endless in (b"0\r\n" + b"T: 1\r\n" * 50_000, b"2;" + b"x" * 300_000):
        answer = asked()
        answer.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(endless), 1000):
            answer.feed(endless[start : start + 1000])
        assert "bytes of headers" in answer.fault
