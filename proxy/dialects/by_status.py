"""The dialects that refuse by HTTP status: what OpenAI, Anthropic and plain REST have in common."""

# ruff: noqa: ARG002 - the arguments are the protocol's; none of these shapes depends on the request

from __future__ import annotations

from abc import ABC, abstractmethod

from proxy.core.verdict import Refusal
from proxy.dialects.base import Answer, Ask
from proxy.dialects.bodies import encode
from proxy.dialects.refusal import JSON, Facts, headers_of


class ByStatus(ABC):
    """A status, the headers and one JSON object. What the object looks like is the dialect's own."""

    content_type: bytes = JSON

    def needs_body(self, method: bytes, path: bytes) -> bool:
        """Never: no decision depends on the body yet, so a refusal costs the reading of none."""
        return False

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
