"""What must hold of every dialect's reader, whatever the bytes: for `make fuzz` and for the suite."""

from __future__ import annotations

import json

from proxy.core.verdict import Reason, Refusal
from proxy.dialects import DIALECTS
from proxy.dialects.base import Ask, Malformed
from proxy.dialects.fingerprint import digest

NAMES = sorted(DIALECTS)
NO = Refusal(Reason.BUCKET_EMPTY, "caller:x", 3.0, "1 requests/3s")

SEEDS = [
    b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":5}',
    b'{"model":"m","input":"hi","max_output_tokens":9,"metadata":{"user_id":"{\\"session_id\\":\\"a\\"}"}}',
    b'{"contents":[{"parts":[{"text":"hi"}]}],"generationConfig":{"maxOutputTokens":9}}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"a":[1,{}]}}}',
    b'[{"jsonrpc":"2.0","id":"a","method":"tools/list"},{"jsonrpc":"2.0","method":"notifications/x"}]',
    b'[{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"b","_meta":{"progressToken":1}}}]',
    b'{"jsonrpc":"2.0","id":9,"result":{}}',
    b'{"id":18446744073709551616,"method":"ping","model":null,"stream":"yes"}',
    b"[" * 200 + b"]" * 200,
    b'{"model":"\xf0\x9f\x98\x80\\ud800","n":1e400}',
]


def check(name: str, body: bytes) -> Ask | None:
    """Read the bytes as this dialect does; what was understood, None where nothing was.

    Raises AssertionError where anything does not hold; any other exception is a defect.
    """
    dialect = DIALECTS[name]
    assert len(digest(body)) == 32
    try:
        ask = dialect.read(body)
    except Malformed:
        return None
    refused = dialect.refuse(NO, ask)
    if refused.body:
        json.loads(refused.body)
    cut = dialect.cut(NO, ask)
    assert cut is None or cut.endswith(b"\n\n")
    try:
        dialect.with_model(b"/v1beta/models/m:batchEmbedContents", body, "other")
        _, other = dialect.with_model(b"/v1/x", body, "other")
    except Malformed:
        return ask
    assert other is not None
    assert dialect.read(other).model == "other"  # what else is in it goes on as it came, be it no UTF-8
    return ask
