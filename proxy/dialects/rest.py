"""Plain HTTP APIs and tools: problem details (RFC 9457)."""

# ruff: noqa: ARG002 - the arguments are the base's; a problem has one shape for every request

from __future__ import annotations

from proxy.core.verdict import Refusal
from proxy.dialects.base import Ask, Malformed
from proxy.dialects.by_status import ByStatus
from proxy.dialects.refusal import Facts, sentence


class Rest(ByStatus):
    """`type` is `urn:backpressure:` with the reason, or with the code of another error: stable, no page."""

    name = "rest"
    tools_in = "path"
    content_type = b"application/problem+json"

    def read(self, body: bytes) -> Ask:
        """Nothing: bodies have no form that is known here."""
        return Ask()

    def refusal_object(self, facts: Facts, status: int) -> dict[str, object]:
        """Problem details with our facts as extension members.

        A final one leaves out the optional `status`: it has digits, and clients scan for them.
        """
        problem: dict[str, object] = {
            "type": f"urn:backpressure:{facts.reason}",
            "title": facts.words.fact,
            "detail": sentence(facts),
        }
        if not facts.is_final:
            problem["status"] = status
        return problem | facts.members()

    def error_object(self, status: int, code: str, message: str) -> dict[str, object]:
        """The same shape without our facts; the title is the code in words."""
        return {
            "type": f"urn:backpressure:{code}",
            "title": code.replace("_", " ").capitalize(),
            "status": status,
            "detail": message,
        }

    def cut(self, refusal: Refusal, ask: Ask | None = None) -> bytes | None:
        """Nothing can be said inside a body of unknown form: reset."""
        return None

    def with_model(self, path: bytes, body: bytes | None, model: str) -> tuple[bytes, bytes | None]:
        """Always Malformed."""
        raise Malformed("A plain HTTP request names no model to replace.")
