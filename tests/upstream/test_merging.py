"""Messages of ours among those of an upstream's answer: whole, wherever the answer is cut into pieces."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream import Downstream, Merged

OURS = [b'{"id":8}', b'{"id":9}']
JSON = (b"content-type", b"application/json; charset=utf-8")
EVENTS = (b"content-type", b"text/event-stream")
spaces = st.text(" \t\r\n", max_size=3).map(str.encode)


class Caller(Downstream):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.ended = False

    def start(self, status, headers):
        self.status, self.headers = status, headers

    def write(self, piece):
        assert piece, "an empty piece would end a chunked answer"
        self.body += piece

    def end(self):
        self.ended = True

    @property
    def slow(self):
        return False

    async def drained(self):
        """At once."""

    def flush(self):
        """Nothing is held."""

    async def next_body(self):
        return None

    def on_gone(self, callback):
        """It stays."""


def passed(status, headers, pieces):
    caller = Caller()
    merged = Merged(caller, OURS)
    merged.start(status, headers)
    for piece in pieces:
        merged.write(piece)
    merged.end()
    return caller, merged


@given(st.lists(st.integers(0, 3), max_size=3), spaces, spaces, spaces, st.data())
def test_ours_come_first_in_an_array_however_it_is_cut_and_spaced(theirs, before, inside, behind, data):
    body = before + b"[" + inside + b",".join(b'{"id":%d}' % each for each in theirs) + b"]" + behind
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=4)))
    edges = [0, *cuts, len(body)]
    pieces = [body[a:b] for a, b in pairwise(edges) if a < b]
    caller, _ = passed(200, [JSON, (b"content-length", b"%d" % len(body))], pieces)
    assert [each["id"] for each in json.loads(caller.body)] == [8, 9, *theirs]
    assert caller.headers == [JSON]
    assert caller.ended


@pytest.mark.parametrize("pieces", [[b'{"id":1}'], [b" ", b"\n{", b'"id":1}']])
def test_one_answer_to_all_that_was_asked_stands_beside_ours(pieces):
    caller, _ = passed(200, [JSON], pieces)
    assert json.loads(caller.body) == [{"id": 8}, {"id": 9}, {"id": 1}]


@pytest.mark.parametrize("pieces", [[], [b"  "]])
def test_an_answer_without_a_word_leaves_ours(pieces):
    caller, _ = passed(200, [JSON], pieces)
    assert json.loads(caller.body) == [{"id": 8}, {"id": 9}]


def test_in_a_stream_each_of_ours_is_an_event_before_all_others():
    caller, _ = passed(200, [EVENTS], [b"event: mess", b'age\ndata: {"id":1}\n\n'])
    assert caller.body == b"".join(
        b'event: message\ndata: {"id":%d}\n\n' % request_id for request_id in (8, 9, 1)
    )


def test_where_the_upstream_only_accepts_ours_are_the_answer():
    caller, _ = passed(202, [(b"content-length", b"0"), (b"mcp-session-id", b"s")], [])
    assert (caller.status, json.loads(caller.body)) == (200, [{"id": 8}, {"id": 9}])
    assert caller.headers == [(b"mcp-session-id", b"s"), (b"content-type", b"application/json")]


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_an_error_is_for_the_whole_batch(status):
    headers = [JSON, (b"content-length", b"8")]
    caller, _ = passed(status, headers, [b'{"id":1}'])
    assert (caller.status, caller.headers, caller.body) == (status, headers, b'{"id":1}')


@pytest.mark.parametrize(
    "headers", [[(b"content-type", b"text/html")], [], [JSON, (b"content-encoding", b"gzip")]]
)
def test_what_cannot_be_read_reaches_nobody(headers):
    caller, merged = passed(200, headers, [b"\x1f\x8b"])
    assert merged.unread
    assert (caller.status, caller.body, caller.ended) == (0, b"", False)
