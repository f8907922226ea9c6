"""What must hold of an answer, whatever the bytes: for `make fuzz` and for the seeded inputs of the suite.

Properties, and h11 as a second reader: where both take the bytes for a whole answer it is the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import h11

from proxy.upstream.answer import COMPLETE, HEAD, Answer
from proxy.upstream.headers import HOP_BY_HOP

NEXT = b"HTTP/1.1 203 Next\r\nx-next: 1\r\ncontent-length: 4\r\n\r\nnext"
MOST_BYTES = 16 * 1024
"""Of an input: what is bounded by its size (a head, trailers) is a matter of other tests."""

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
UNSENDABLE = re.compile(rb"[\0\r\n]")


@dataclass(frozen=True)
class Read:
    """What was made of the bytes."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    complete: bool
    failed: bool
    keep: bool


def check(raw: bytes, cuts: Iterable[int], *, bodiless: bool) -> Read:
    """Read the bytes whole and cut; raises AssertionError where anything does not hold."""
    raw = raw[:MOST_BYTES]
    whole = read(raw, (), bodiless=bodiless)
    parts = read(raw, cuts, bodiless=bodiless)
    # Line breaks after a whole answer are seen only by who reads them apart: then it is not kept either.
    assert whole == parts or replace(whole, keep=False) == parts, (whole, parts)
    _sound(whole, raw, bodiless=bodiless)
    other = _by_h11(raw, bodiless=bodiless)
    if other is not None and whole.complete:
        assert (whole.status, whole.body) == other, (whole, other)
    return whole


def read(raw: bytes, cuts: Iterable[int], *, bodiless: bool) -> Read:
    """As a connection does; `cuts` are where one read ends and the next begins. At last the stream ends."""
    answer, body, unasked = Answer(), b"", False
    answer.reset(bodiless=bodiless)
    for start, end in pairwise([0, *sorted({cut % (len(raw) + 1) for cut in cuts}), len(raw)]):
        if start < end and answer.phase == COMPLETE:
            unasked = True
            break
        answer.feed(raw[start:end])
        body += answer.take()
        if answer.fault:
            break
    keep, status, headers, failed = answer.keep, answer.status, tuple(answer.headers), bool(answer.fault)
    complete, kept = answer.phase == COMPLETE, answer.phase == COMPLETE and keep and not unasked
    if kept:
        _is_in_step(answer)
    else:
        answer.eof()
        complete = answer.phase == COMPLETE
    return Read(status if complete else 0, headers if complete else (), body, complete, failed, kept)


def _is_in_step(answer: Answer) -> None:
    """A connection that is kept reads the next answer as it is."""
    answer.reset(bodiless=False)
    assert (answer.phase, answer.fault, answer.take()) == (HEAD, "", b"")
    answer.feed(NEXT)
    assert (answer.phase, answer.fault, answer.status, answer.take()) == (COMPLETE, "", 203, b"next")
    assert answer.headers == [(b"x-next", b"1"), (b"content-length", b"4")]


def _sound(found: Read, raw: bytes, *, bodiless: bool) -> None:
    assert not (found.failed and (found.complete or found.keep))
    assert len(found.body) <= len(raw)
    if not found.complete:
        return
    assert 200 <= found.status <= 599
    for name, value in found.headers:
        assert TOKEN.fullmatch(name), name
        assert not UNSENDABLE.search(value), value
        assert name not in HOP_BY_HOP | {b"connection"}, name
    lengths = [value for name, value in found.headers if name == b"content-length"]
    assert len(lengths) <= 1
    if bodiless or found.status in (204, 304):
        assert not found.body
    elif lengths:
        assert len(found.body) == int(lengths[0])


def _by_h11(raw: bytes, *, bodiless: bool) -> tuple[int, bytes] | None:
    """Status and body where h11 reads a whole answer, else None."""
    reader, status, body = h11.Connection(h11.CLIENT), 0, b""
    method = "HEAD" if bodiless else "GET"
    reader.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    reader.send(h11.EndOfMessage())
    ended = False
    try:
        reader.receive_data(raw)
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return status, body
            elif event is h11.NEED_DATA and not ended:
                ended = True
                reader.receive_data(b"")
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None
