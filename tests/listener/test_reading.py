"""The reader of requests, without a socket: where it stops, and what it makes of long bodies."""

from __future__ import annotations

import random
from typing import cast

import pytest

from proxy.core.verdict import End
from proxy.listener.reading import LONG_BYTES, RequestReader, Taker
from proxy.server import bounds_of
from proxy.settings import parse
from proxy.wire import Wire
from tests.kit.raw import head

SETTINGS = "upstreams: {up: {url: 'http://a', dialect: rest}}\nroutes: [{name: up, path: /, upstream: up}]\n"
BOUNDS = bounds_of(parse(SETTINGS, "test.yaml", {}))

MANY = 5_000


class Full:
    """A connection that takes so many requests, and says then that it is enough."""

    def __init__(self, most: int) -> None:
        self.reader = RequestReader(cast("Taker", self), BOUNDS)
        self.taken: list[Wire] = []
        self.refused: list[End] = []
        self._most = most

    def take(self, wire: Wire) -> None:
        self.taken.append(wire)
        self.reader.stopped = len(self.taken) == self._most

    def refuse(self, status: int, why: End, message: str) -> None:
        self.refused.append(why)


def test_of_heads_that_were_read_at_once_none_is_looked_at_behind_the_last_that_is_taken() -> None:
    full = Full(most=100)
    full.reader.feed(b"".join(head("GET", "/x", n=str(n)) for n in range(MANY)))
    assert full.reader.wire is full.taken[-1], "not even begun"
    assert [wire.headers[-1] for wire in full.taken] == [(b"n", b"%d" % n) for n in range(100)]
    assert not full.refused


def test_nor_behind_one_that_is_refused() -> None:
    full = Full(most=MANY)
    full.reader.feed(head("GET", "/x").replace(b"host", b"hust") + head("GET", "/x", n="1") * MANY)
    assert (full.refused, full.taken) == ([End.BAD_REQUEST], [])
    assert full.reader.wire is not None
    assert full.reader.wire.headers == [(b"hust", b"proxy")]


class Keeping:
    """A connection that takes every request and keeps all of its body."""

    def __init__(self) -> None:
        self.reader = RequestReader(cast("Taker", self), BOUNDS)
        self.taken: list[Wire] = []
        self.refused: list[End] = []

    def take(self, wire: Wire) -> None:
        self.taken.append(wire)

    def refuse(self, status: int, why: End, message: str) -> None:
        self.refused.append(why)

    def pause_reading(self) -> None: ...


def read(pieces: list[bytes]) -> tuple[list[tuple[bytes, bytes, bool]], list[End]]:
    keeping = Keeping()
    for piece in pieces:
        if not keeping.reader.stopped:
            keeping.reader.feed(piece)
    whole = [(wire.path, b"".join(wire._arrived), wire.body_arrived) for wire in keeping.taken]
    return whole, keeping.refused


def cut(stream: bytes, rng: random.Random) -> list[bytes]:
    """The stream in pieces as a socket may bring them: a few bytes, a whole read, all that there is."""
    pieces = []
    while stream:
        size = rng.choice((rng.randint(1, 300), LONG_BYTES - 1, LONG_BYTES, 256 * 1024, len(stream)))
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


def request(n: int, rng: random.Random) -> tuple[bytes, bytes]:
    size = rng.choice((0, 5, 700, LONG_BYTES - 1, LONG_BYTES, LONG_BYTES + 1, 3 * LONG_BYTES))
    body = (b"\r\n\r\nPOST /smuggled HTTP/1.1\r\n" * (size // 20 + 1))[:size]
    path = b"/%d" % n
    more = {"upgrade": "h2c", "connection": "upgrade"} if rng.random() < 0.2 else {}
    if rng.random() < 0.2:
        coded = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        return path, head("POST", path.decode(), transfer_encoding="chunked", **more) + coded
    return path, head("POST", path.decode(), content_length=str(len(body)), **more) + body


@pytest.mark.parametrize("seed", range(40))
def test_long_bodies_are_read_alike_however_they_arrive(seed: int) -> None:
    rng = random.Random(seed)
    stream = b"".join(request(n, rng)[1] for n in range(12))
    one_by_one = [stream[at : at + 1000] for at in range(0, len(stream), 1000)]  # nothing is long
    expected = read(one_by_one)
    assert [path for path, _, _ in expected[0]] == [b"/%d" % n for n in range(12)]
    assert read(cut(stream, rng)) == expected


def test_a_long_body_is_handed_on_without_a_copy() -> None:
    keeping = Keeping()
    body = b"x" * LONG_BYTES
    keeping.reader.feed(head("POST", "/", content_length=str(len(body))) + body)
    (wire,) = keeping.taken
    piece = wire.arrived_whole()
    assert isinstance(piece, memoryview)
    assert piece == body
    assert wire.take_arrived() == body, "for whoever wants bytes after all"
    assert type(wire.take_arrived()) is bytes


def test_what_follows_a_long_body_is_read_as_strictly_as_before() -> None:
    keeping = Keeping()
    body = b"x" * LONG_BYTES
    keeping.reader.feed(head("POST", "/", content_length=str(len(body))) + body + b"GARBAGE\r\n\r\n")
    assert len(keeping.taken) == 1
    assert keeping.taken[0].body_arrived
    assert keeping.refused == [End.BAD_REQUEST]


def test_of_a_body_that_drips_in_no_more_is_kept_than_its_bytes() -> None:
    keeping = Keeping()
    keeping.reader.feed(head("POST", "/", content_length=str(1 << 20)) + b"x" * LONG_BYTES)
    for drop in (b"1", b"22", b"333"):
        keeping.reader.feed(drop)
    (wire,) = keeping.taken
    assert [type(piece) for piece in wire._arrived] == [memoryview, bytes, bytes, bytes], (
        "a view takes 200 bytes"
    )
