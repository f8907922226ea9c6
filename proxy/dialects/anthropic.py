"""The Anthropic Messages API: errors as the `anthropic` SDK and Claude Code read them."""

# ruff: noqa: ARG002 - the arguments are the base's; an error has one shape for every request

from __future__ import annotations

from typing import Final

from proxy.core.verdict import Kind, Reason, Refusal, kind_of
from proxy.dialects.base import Ask
from proxy.dialects.bodies import encode, read_completion
from proxy.dialects.by_status import ByStatus
from proxy.dialects.refusal import Facts, sentence

_TYPES_BY_STATUS: Final = {404: "not_found_error", 413: "request_too_large", 504: "timeout_error"}


def _type_of(reason: Reason) -> str:
    """`error.type` (clients.md, "Statuses and codes").

    Never `overloaded_error`: Claude Code retries it whatever the headers say, and changes the model.
    `billing_error` is final for Claude Code and pydantic-ai, with no fallback request after it.
    """
    match kind_of(reason):
        case Kind.COME_BACK:
            return "rate_limit_error"
        case Kind.UNAVAILABLE:
            return "api_error"
        case Kind.UPSTREAM:
            return "timeout_error" if reason is Reason.UPSTREAM_TIMEOUT else "api_error"
        case Kind.NOT_AGAIN | Kind.STOP:
            return "billing_error"


_TYPES: Final = {reason: _type_of(reason) for reason in Reason}


class Anthropic(ByStatus):
    """`{"type": "error", "error": {"type", "message"}}`, with our facts beside them as `backpressure`."""

    name = "anthropic"
    is_model_api = True
    costing = frozenset({b"messages", b"complete"})
    """Messages and the older completions. Batches and the counting of tokens cost a request."""

    def read(self, body: bytes) -> Ask:
        """Model and stream."""
        return read_completion(body)

    def refusal_object(self, facts: Facts, status: int) -> dict[str, object]:
        """The error object; the SDK chooses the exception by status and gives the object as its `body`."""
        return {
            "type": "error",
            "error": {
                "type": _TYPES[facts.reason],
                "message": sentence(facts),
                "backpressure": facts.members(),
            },
        }

    def error_object(self, status: int, code: str, message: str) -> dict[str, object]:
        """The same shape without our facts; the type follows from the status, and a code has no place."""
        kind = _TYPES_BY_STATUS.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message}}

    def cut(self, refusal: Refusal, ask: Ask | None = None) -> bytes | None:
        """The protocol's `error` event.

        It begins with an empty line, which ends an event that the upstream left unfinished.
        """
        facts = Facts(refusal)
        told = self.refusal_object(facts, facts.status)
        return b"\n\nevent: error\ndata: " + encode(told) + b"\n\n"
