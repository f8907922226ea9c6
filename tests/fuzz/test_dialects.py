"""The dialects' readers under seeded changes: a short form of `make fuzz`."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz.dialects import NAMES, SEEDS, check

WORDS = [
    b'"', b"{", b"}", b"[", b"]", b":", b",", b"null", b"true", b"-1", b"1e999", b"\\u0000", b"\\ud800",
    b"\0", b"\xff", b'"model":', b'"stream":', b'"id":', b'"method":"tools/call"', b'"params":', b'"name":',
    b'"jsonrpc":"2.0"', b'"model":"x"', b'"n":', b" ", b"99999999999999999999",
]  # fmt: skip


def changed(chance: Random) -> bytes:
    raw = bytearray(chance.choice(SEEDS))
    for _ in range(chance.choice((0, 1, 1, 2, 3, 6))):
        at = chance.randrange(len(raw) + 1)
        end = min(len(raw), at + chance.choice((0, 1, 4, 30)))
        raw[at:end] = chance.choice((b"", chance.choice(WORDS), chance.randbytes(3), bytes(raw[at:end]) * 2))
    return bytes(raw)


@pytest.mark.parametrize("name", NAMES)
def test_no_bytes_are_more_than_malformed(name: str):
    chance = Random(name)
    read = sum(check(name, changed(chance)) is not None for _ in range(5_000))
    assert read > 500, "and many are understood, so that what is said of them was looked at"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_deep_or_huge_is_read_or_refused_cleanly(name: str):
    for body in (
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"model":"' + b"x" * 2_000_000 + b'"}',
        b"",
        b"\xef\xbb\xbf{}",
    ):
        check(name, body)
