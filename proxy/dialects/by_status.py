"""The dialects that refuse by HTTP status: what OpenAI, Anthropic, Gemini and plain REST share."""

# ruff: noqa: ARG002 - the arguments are the base's; none of these shapes depends on the request

from __future__ import annotations

from abc import abstractmethod

from proxy.core.verdict import Refusal
from proxy.dialects.base import Answer, Ask
from proxy.dialects.bodies import encode, replace_model
from proxy.dialects.paths import last_segment
from proxy.dialects.refusal import JSON, Facts, headers_of
from proxy.dialects.unsaid import InTheBody


class ByStatus(InTheBody):
    """A status, the headers and one JSON object. What the object looks like is the dialect's own."""

    content_type: bytes = JSON
    is_model_api: bool = False
    tools_in: str = ""
    costing: frozenset[bytes] = frozenset()
    """The last segment of the paths whose calls cost tokens; all others cost a request only."""

    def needs_body(self, method: bytes, path: bytes) -> bool:
        """Never: no decision depends on the body yet, so a refusal costs the reading of none."""
        return False

    def is_session(self, method: bytes) -> bool:
        """No session lives by any request."""
        return False

    def costs_tokens(self, path: bytes) -> bool:
        """By the last segment of the path."""
        return last_segment(path) in self.costing

    def with_model(self, path: bytes, body: bytes | None, model: str) -> tuple[bytes, bytes | None]:
        """The same request with the `model` of its body replaced."""
        return path, replace_model(body or b"", model)

    def refuse(
        self, refusal: Refusal, ask: Ask | None, *, refuse_as: str = "result", stop_status: int = 400
    ) -> Answer:
        """The refusal by status. `refuse_as` is MCP's choice and means nothing here."""
        facts = Facts(refusal)
        status = facts.status_or(stop_status)
        headers = headers_of(facts, self.content_type, by_status=True)
        return Answer(status, headers, encode(self.refusal_object(facts, status)))

    def error(self, status: int, code: str, message: str) -> Answer:
        """Another answer of ours by status."""
        return Answer(
            status, [(b"content-type", self.content_type)], encode(self.error_object(status, code, message))
        )

    @abstractmethod
    def refusal_object(self, facts: Facts, status: int) -> dict[str, object]:
        """The body of a refusal: the dialect's error shape, one sentence, and the facts."""

    @abstractmethod
    def error_object(self, status: int, code: str, message: str) -> dict[str, object]:
        """The body of another error of ours."""
