"""Two requests have one fingerprint exactly when a client would call the second a retry of the first."""

from __future__ import annotations

from hashlib import sha256

import pytest

from proxy.dialects import digest

CALL = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call",'
    b'"params":{"name":"f","arguments":{"id":1},"_meta":{"a":1}}}'
)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b'{"a": {"x": 1, "y": 2}, "b": 3}', b'{"b":3,"a":{"y":2,"x":1}}'),
        (b'{"a": "\xc3\xa9"}', b'{"a": "\\u00e9"}'),
        (b'{"model": "m", "stream": true, "stream_options": {"include_usage": true}}', b'{"model": "m"}'),
        (CALL, CALL.replace(b'"id":1,"method"', b'"id":"b","method"').replace(b'{"a":1}', b'{"token":9}')),
        (b"[" + CALL + b"]", b"[" + CALL.replace(b'"id":1,"method"', b'"id":2,"method"') + b"]"),
    ],
)
def test_what_changes_between_retries_does_not_count(first: bytes, second: bytes) -> None:
    assert digest(first) == digest(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b'{"messages": ["a", "b"]}', b'{"messages": ["b", "a"]}'),
        (b'{"x": {"stream": true}}', b'{"x": {}}'),
        (b'{"id": 1}', b'{"id": 2}'),
        (b'{"n": 1}', b'{"n": "1"}'),
        (CALL, CALL.replace(b'"arguments":{"id":1}', b'"arguments":{"id":2}')),
        (CALL, CALL.replace(b'"name":"f"', b'"name":"g"')),
    ],
)
def test_what_a_request_means_counts(first: bytes, second: bytes) -> None:
    assert digest(first) != digest(second)


@pytest.mark.parametrize(
    "body", [b"", b"plain", b'{"a": "\xff"}', b'{"a": "\\ud800"}', b"[" * 100_000 + b"]" * 100_000]
)
def test_what_is_no_readable_json_counts_by_its_bytes(body: bytes) -> None:
    assert digest(body) == sha256(body).digest()
