"""The stream of OpenAI's Responses API, where it fails: one `response.failed` event, read by every client.

Its inner `error` is for Codex, the outer one makes the SDKs raise (reference/clients.md, "Codex
compatibility" and "Refusal after the first byte").
"""

from __future__ import annotations

from typing import Final

from proxy.core.verdict import Refusal
from proxy.dialects.base import Answer
from proxy.dialects.bodies import encode
from proxy.dialects.openai import OpenAI, error_of
from proxy.dialects.refusal import Facts, headers_of

EVENTS: Final = b"text/event-stream"

COME_BACK: Final = "rate_limit_exceeded"
"""The one code with which Codex reads "Please try again in Ns." from the message."""

STOP: Final = "insufficient_quota"
"""The one that ends its retries without a word about load; others are taken for a lost connection."""

STOP_STATUS: Final = 400
"""The one that ends them with our words: of an event that stops it Codex shows a sentence of its own."""

_OPENAI: Final = OpenAI()


def is_responses(dialect: str, path: bytes) -> bool:
    """Is this the path at which responses are made? `path` is without its query."""
    return dialect == "openai" and path.endswith(b"/responses")


def refused(refusal: Refusal, model: str, created_at: int) -> Answer:
    """The refusal as every Codex heeds it, and shows it: a stream that fails with its first event (HTTP 200),
    or where no return is asked for a 400. It would repeat anything else at once, and five times.

    `created_at` in seconds since 1970; `model` is "" where it is not known.
    """
    facts = Facts(refusal)
    if facts.invites:
        frame = _failed(facts, COME_BACK, "rate_limit_error", model, created_at)
        return Answer(200, headers_of(facts, EVENTS, by_status=True), frame)
    as_to_others = _OPENAI.refuse(refusal, None)
    return Answer(STOP_STATUS, as_to_others.headers, as_to_others.body)


def cut(refusal: Refusal, model: str, created_at: int) -> bytes:
    """The last event of a stream that has begun.

    It begins with an empty line, which ends an event that the upstream left unfinished.
    """
    facts = Facts(refusal)
    code, kind = (STOP, STOP) if facts.is_final else (facts.reason.value, "server_error")
    return b"\n\n" + _failed(facts, code, kind, model, created_at)


def _failed(facts: Facts, code: str, kind: str, model: str, created_at: int) -> bytes:
    error = error_of(facts, code, kind)
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
            "error": {"code": code, "message": error["message"]},
        },
        "error": error,
    }
    return b"event: response.failed\ndata: " + encode(event) + b"\n\n"
