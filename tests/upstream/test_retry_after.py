"""When the upstream asks to come back."""

from __future__ import annotations

import pytest

from proxy.upstream.retry_after import retry_after_s

WALL = 784111770.0  # Sun, 06 Nov 1994 08:49:30 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        ([(b"retry-after", b"7")], 7.0),
        ([(b"retry-after", b"0")], 0.0),
        ([(b"retry-after-ms", b"1500")], 1.5),
        ([(b"retry-after", b"2"), (b"retry-after-ms", b"1500")], 1.5),
        ([(b"retry-after", b"2"), (b"retry-after-ms", b"soon")], 2.0),
        ([(b"retry-after", b"Sun, 06 Nov 1994 08:49:37 GMT")], 7.0),
        ([(b"retry-after", b"Sun, 06 Nov 1994 08:49:20 GMT")], 0.0),
        (
            [
                (b"retry-after", b"Sun, 06 Nov 1994 09:00:05 GMT"),
                (b"date", b"Sun, 06 Nov 1994 09:00:00 GMT"),
            ],
            5.0,
        ),
        ([(b"retry-after", b"-3")], None),
        ([(b"retry-after", b"nan")], None),
        ([(b"retry-after", b"inf")], None),
        ([(b"retry-after", b"\xff")], None),
        ([(b"retry-after", b"Sun, 99 Nov 1994 08:49:37 GMT")], None),
    ],
)
def test_seconds_until_the_upstream_may_be_asked_again(headers: list[tuple[bytes, bytes]], seconds: float):
    assert retry_after_s(headers, WALL) == seconds
