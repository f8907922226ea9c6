"""The stream of OpenAI's Responses API, where it fails: one `response.failed` event, read by every client.

Its inner `error` is for Codex, the outer one makes the SDKs raise (reference/clients.md, "Codex
compatibility" and "Refusal after the first byte").
"""

from __future__ import annotations

from typing import Final

from proxy.core.verdict import Refusal
from proxy.dialects.base import Answer
from proxy.dialects.bodies import encode
from proxy.dialects.refusal import Facts, headers_of, sentence

EVENTS: Final = b"text/event-stream"

COME_BACK: Final = "rate_limit_exceeded"
"""The one code with which Codex reads "Please try again in Ns." from the message."""

STOP: Final = "insufficient_quota"
"""The one that ends its retries without a word about load; others are taken for a lost connection."""


def is_responses(dialect: str, path: bytes) -> bool:
    """Is this the path at which responses are made? `path` is without its query."""
    return dialect == "openai" and path.endswith(b"/responses")


def refused(refusal: Refusal, model: str, created_at: int) -> Answer:
    """The refusal as a stream that fails with its first event: HTTP 200.

    Where no return is asked for it stops: Codex would repeat anything else at once, and five times.
    `created_at` in seconds since 1970; `model` is "" where it is not known.
    """
    facts = Facts(refusal)
    code, kind = (COME_BACK, "rate_limit_error") if facts.invites else (STOP, STOP)
    frame = _failed(facts, code, kind, model, created_at)
    return Answer(200, headers_of(facts, EVENTS, by_status=True), frame)


def cut(refusal: Refusal, model: str, created_at: int) -> bytes:
    """The last event of a stream that has begun.

    It begins with an empty line, which ends an event that the upstream left unfinished.
    """
    facts = Facts(refusal)
    code, kind = (STOP, STOP) if facts.is_final else (facts.reason.value, "server_error")
    return b"\n\n" + _failed(facts, code, kind, model, created_at)


def _failed(facts: Facts, code: str, kind: str, model: str, created_at: int) -> bytes:
    message = sentence(facts)
    event = {
        "type": "response.failed",
        "sequence_number": 0,
        "response": {
            "id": "resp_bp",
            "object": "response",
            "created_at": created_at,
            "status": "failed",
            "model": model,
            "output": [],
            "error": {"code": code, "message": message},
        },
        "error": {
            "type": kind,
            "code": code,
            "message": message,
            "param": None,
            "backpressure": facts.members(),
        },
    }
    return b"event: response.failed\ndata: " + encode(event) + b"\n\n"
