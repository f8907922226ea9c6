"""Answers that are nearly right: the seeds of `corpus/`, changed by a seeded chance."""

from __future__ import annotations

from pathlib import Path
from random import Random

CORPUS = Path(__file__).parent / "corpus"
SEEDS = [file.read_bytes() for file in sorted(CORPUS.iterdir())]

WORDS = [
    b"HTTP/2.0 ",
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"0\r\n\r\n", b"-1",
    b"+1", b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"101",
    b"204", b"304", b"content-length: ", b"Content-Length: 5\r\n", b"content-length: 0\r\n",
    b"transfer-encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"connection: close\r\n",
    b"Connection: keep-alive\r\n", b"connection: upgrade\r\nupgrade: h2c\r\n",
    b"connection: content-length\r\n", b"trailer: x\r\n", b"ffffffffffffffff", b"7fffffffffffffff",
    b"18446744073709551616", b"5\r\nhello\r\n", b"chunked", b"\xff",
]  # fmt: skip


def mutated(chance: Random) -> bytes:
    """An input: most are one seed with a few changes, some are none at all."""
    raw = bytearray(chance.choice(SEEDS))
    if chance.random() < 0.02:
        raw = bytearray(chance.randbytes(chance.randrange(200)))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 6))):
        _change(raw, chance)
    return bytes(raw)


def cuts_of(raw: bytes, chance: Random) -> list[int]:
    """Where one read ends and the next begins: at every byte, now and then."""
    if chance.random() < 0.1:
        return list(range(len(raw)))
    return [chance.randrange(len(raw) + 1) for _ in range(chance.randrange(6))]


def _change(raw: bytearray, chance: Random) -> None:
    at = chance.randrange(len(raw) + 1)
    end = min(len(raw), at + chance.choice((1, 1, 2, 8, 40)))
    match chance.randrange(7):
        case 0:
            raw[at:end] = b""
        case 1:
            raw[at:at] = chance.choice(WORDS)
        case 2:
            raw[at:end] = chance.choice(WORDS)
        case 3:
            raw[at:end] = chance.randbytes(end - at)
        case 4:
            raw[at:at] = raw[at:end]
        case 5:
            raw += chance.choice(SEEDS)
        case _:
            del raw[at:]
