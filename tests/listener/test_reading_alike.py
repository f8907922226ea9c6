"""Long reads and short ones make the same requests of the same bytes, well-formed or not.

Past the parser go only bytes of a body whose length it told. Should the two ever disagree on where that body
ends, a request would be smuggled: so a stream is read in small pieces, by the parser alone, and again in
whatever pieces, with the bound of what is long so low that every body may go past it.
"""

from __future__ import annotations

import random
from typing import cast

import pytest

from proxy.core.verdict import End
from proxy.listener import reading
from proxy.listener.reading import RequestReader, Taker
from proxy.server import bounds_of
from proxy.settings import parse
from proxy.wire import Wire

SETTINGS = "upstreams: {up: {url: 'http://a', dialect: rest}}\nroutes: [{name: up, path: /, upstream: up}]\n"
BOUNDS = bounds_of(parse(SETTINGS, "test.yaml", {}))

LONG = 48
SIZES = (0, 1, 5, LONG - 1, LONG, LONG + 1, 2 * LONG, 7 * LONG)

FIELDS = (
    b"x: y", b"x:\t", b"x: " + b"a" * 200, b"te: trailers", b"expect: 100-continue", b"connection: close",
    b"connection: keep-alive", b"connection: upgrade", b"upgrade: h2c", b"upgrade: websocket",
    b"transfer-encoding: chunked", b"transfer-encoding: gzip", b"transfer-encoding: chunked ",
    b"content-length: 3", b"content-length: 0", b"host: two", b"x : y", b" folded",
)  # fmt: skip

NOISE = (b"", b" ", b"x", b"\0", b"\n", b"\r", b"\r\n", b"\r\n\r\n")


class Keeping:
    """A connection that takes so many requests, and keeps what arrives of them."""

    def __init__(self, most: int) -> None:
        self.reader = RequestReader(cast("Taker", self), BOUNDS)
        self.taken: list[Wire] = []
        self.refused: list[tuple[int, End]] = []
        self._most = most

    def take(self, wire: Wire) -> None:
        self.taken.append(wire)
        self.reader.stopped = len(self.taken) == self._most

    def refuse(self, status: int, why: End, message: str) -> None:
        self.refused.append((status, why))

    def pause_reading(self) -> None: ...


def read(pieces: list[bytes], most: int) -> tuple[object, ...]:
    """All that came of a stream, and where the reader stands."""
    keeping = Keeping(most)
    reader = keeping.reader
    for piece in pieces:
        if not reader.stopped:
            reader.feed(piece)
    taken = [
        (wire.method, wire.path, wire.query, wire.headers, b"".join(wire._arrived), wire.length,
         wire.has_body, wire.body_arrived, wire.awaits_continue, wire.keep, wire.http10)
        for wire in keeping.taken
    ]  # fmt: skip
    return taken, keeping.refused, reader.phase, reader.stopped


def cut(stream: bytes, rng: random.Random) -> list[bytes]:
    pieces = []
    while stream:
        size = rng.choice((1, 3, rng.randint(1, 60), LONG - 1, LONG, 3 * LONG, len(stream)))
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


def request(n: int, rng: random.Random) -> bytes:
    size = rng.choice(SIZES)
    body = (b"\r\n\r\nPOST /smuggled HTTP/1.1\r\nhost: p\r\n\r\n" * 20)[:size]
    if rng.random() < 0.3:
        body = bytes(rng.choice(b"\r\nab\0 5") for _ in range(size))
    method = rng.choice((b"POST",) * 8 + (b"GET", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT"))
    target = rng.choice((b"/%d" % n,) * 6 + (b"/%d?q" % n, b"http://a/%d" % n, b"*", b"a:80"))
    version = rng.choice((b"HTTP/1.1",) * 8 + (b"HTTP/1.0", b"HTTP/1.2"))
    fields = [b"host: p"]
    framing = rng.random()
    if framing < 0.7:
        wrong = rng.choice((-60, -1, 1, 60)) if rng.random() < 0.05 else 0
        fields.append(b"content-length: %d" % max(0, size + wrong))
    elif framing < 0.9:
        fields.append(b"transfer-encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body) if size else b"0\r\n\r\n"
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        fields.insert(rng.randint(0, len(fields)), rng.choice(FIELDS))
    if rng.random() < 0.1:
        fields += [b"connection: upgrade", b"upgrade: h2c"]
    raw = b"\r\n".join([b"%b %b %b" % (method, target, version), *fields, b"", body])
    if rng.random() < 0.1:
        raw = rng.choice(NOISE) + raw
    if rng.random() < 0.05:
        at = rng.randrange(len(raw))
        raw = raw[:at] + rng.choice(NOISE) + raw[at + rng.choice((0, 1)) :]
    return raw


@pytest.mark.parametrize("seed", range(20))
def test_however_a_stream_is_cut_the_same_requests_are_read(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LONG_BYTES", LONG)
    rng = random.Random(seed)
    for _ in range(200):
        stream = b"".join(request(n, rng) for n in range(rng.randint(1, 5)))
        most = rng.choice((100, 100, 100, 1, 2, 3))
        by_the_parser_alone = read([stream[at : at + 7] for at in range(0, len(stream), 7)], most)
        assert read(cut(stream, rng), most) == by_the_parser_alone, stream
