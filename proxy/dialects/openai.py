"""The OpenAI API, Chat Completions and Responses alike: errors as the `openai` SDK raises them."""

# ruff: noqa: ARG002 - the arguments are the base's; an error has one shape for every request

from __future__ import annotations

from typing import Final

from proxy.core.verdict import Kind, Reason, Refusal, kind_of
from proxy.dialects.base import Ask
from proxy.dialects.bodies import encode, read_completion
from proxy.dialects.by_status import ByStatus
from proxy.dialects.paths import last_segment
from proxy.dialects.refusal import Facts, sentence

_FINAL_CODES: Final = {
    Reason.RETRY_BUDGET_SPENT: "retry_budget_exhausted",
    Reason.RUN_BUDGET_SPENT: "run_budget_exhausted",
    Reason.RUN_HALTED: "run_halted",
    Reason.TOO_DEAR: "request_too_dear",
}


def _code_and_type(reason: Reason) -> tuple[str, str]:
    """`code` and `type` of the error object (clients.md, "Statuses and codes").

    `insufficient_quota` is the type that pydantic-ai, Codex, Vercel and OpenCode do not retry.
    """
    match kind_of(reason):
        case Kind.COME_BACK:
            return "rate_limit_exceeded", "rate_limit_error"
        case Kind.UNAVAILABLE:
            return "upstream_unavailable", "server_error"
        case Kind.UPSTREAM:
            return reason.value, "server_error"
        case Kind.NOT_AGAIN | Kind.STOP:
            return _FINAL_CODES[reason], "insufficient_quota"


_CODES: Final = {reason: _code_and_type(reason) for reason in Reason}


def error_of(facts: Facts, code: str, kind: str) -> dict[str, object]:
    """The error object of a refusal; the SDK gives it to its user as `body` of the exception."""
    return {
        "message": sentence(facts),
        "type": kind,
        "param": None,
        "code": code,
        "backpressure": facts.members(),
    }


class OpenAI(ByStatus):
    """`{"error": {"message", "type", "param", "code"}}`, with our facts beside them as `backpressure`."""

    name = "openai"
    is_model_api = True
    costing = frozenset({b"completions", b"responses", b"compact", b"embeddings"})
    """Both Completions, Responses and their compaction, embeddings. Lists of models, files, batches, the
    counting of tokens, images and audio cost a request."""

    def read(self, body: bytes) -> Ask:
        """Model and stream."""
        return read_completion(body)

    def answers_no_text(self, path: bytes) -> bool:
        """Embeddings."""
        return last_segment(path) == b"embeddings"

    def refusal_object(self, facts: Facts, status: int) -> dict[str, object]:
        """`error`, by the reason."""
        code, kind = _CODES[facts.reason]
        return {"error": error_of(facts, code, kind)}

    def error_object(self, status: int, code: str, message: str) -> dict[str, object]:
        """The same shape without our facts."""
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}

    def cut(self, refusal: Refusal, ask: Ask | None = None) -> bytes | None:
        """An `error` frame and no `[DONE]`: the SDK raises at a top-level `error` in any frame.

        It begins with an empty line, which ends a frame that the upstream left unfinished.
        """
        facts = Facts(refusal)
        told = self.refusal_object(facts, facts.status)
        return b"\n\ndata: " + encode(told) + b"\n\n"
