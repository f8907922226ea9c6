"""The Gemini API, Google's own and Vertex AI's form of it: errors as the `google-genai` SDK reads them.

The model and what is asked of it stand in the path: `…/models/gemini-2.5-pro:generateContent`.
"""

# ruff: noqa: ARG002 - the arguments are the base's; an error has one shape for every request

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from proxy.core.verdict import Refusal
from proxy.dialects.advice import in_line, members
from proxy.dialects.base import Ask
from proxy.dialects.bodies import encode, read_completion, replace_model, replace_models
from proxy.dialects.by_status import ByStatus
from proxy.dialects.paths import last_segment, segments
from proxy.dialects.refusal import Facts, more_of

DOMAIN: Final = "backpressure"
"""`domain` of our ErrorInfo: who gives the reason."""

_STATUSES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""google.rpc.Code by HTTP status. 502 is not Google's: gRPC clients take it as UNAVAILABLE."""

_TYPE: Final = "type.googleapis.com/google.rpc."

_GENERATING: Final = frozenset({b"generateContent", b"streamGenerateContent"})
_STREAMING: Final = frozenset({b"streamGenerateContent", b"streamRawPredict"})
_EMBEDDING: Final = frozenset({b"embedContent", b"batchEmbedContents"})
_COSTING: Final = _GENERATING | _STREAMING | _EMBEDDING | {b"generateAnswer", b"rawPredict"}
_COSTING_PATHS: Final = frozenset({b"interactions", b"completions", b"embeddings"})
"""Paths that name no model: the Interactions API, and Google's OpenAI form (`/v1beta/openai/…`), so that none
is a way around a bucket."""

_COLLECTIONS: Final = ("models", "tunedModels", "endpoints")
_PLACE: Final = re.compile(rb"(.*/)(models|tunedModels|endpoints)/[^/]+?((?::|%3[Aa])[A-Za-z]+)", re.DOTALL)
_RESOURCE: Final = re.compile(r"(?:(.*/)?(models|tunedModels|endpoints)/)?[^/]*", re.DOTALL)


class Gemini(ByStatus):
    """`{"error": {"code", "message", "status", "details"}}`, with our facts in `details` as Google has them:
    RetryInfo and ErrorInfo.
    """

    name = "gemini"
    is_model_api = True

    def read(self, body: bytes) -> Ask:
        """Model and stream, for the few paths that do not name them."""
        return read_completion(body)

    def costs_tokens(self, path: bytes) -> bool:
        """What generates or embeds does; the counting of tokens, batches, files and images do not.

        `predict` embeds or makes images, by its model.
        """
        name, colon, verb = last_segment(path).rpartition(b":")
        if not colon:
            return verb in _COSTING_PATHS
        return verb in _COSTING or (verb == b"predict" and b"embedding" in name)

    def answers_no_text(self, path: bytes) -> bool:
        """Embeddings."""
        verb = last_segment(path).rpartition(b":")[2]
        return verb in _EMBEDDING or verb in (b"predict", b"embeddings")

    def model_in(self, path: bytes) -> str:
        """The model's own name; a tuned one, or an endpoint of Vertex AI, with its collection before it."""
        found = segments(path)[-2:]
        if len(found) < 2:
            return ""
        collection, name = found[0].decode("utf-8", "replace"), found[1].rpartition(b":")[0]
        if collection not in _COLLECTIONS:
            return ""
        model = name.decode("utf-8", "replace")
        return model if collection == "models" or not model else f"{collection}/{model}"

    def streams(self, path: bytes) -> bool:
        """What is asked says so, not the body. Events come with `alt=sse` only, else one array bit by bit."""
        return last_segment(path).rpartition(b":")[2] in _STREAMING

    def model_in_body(self, path: bytes) -> bool:
        """Of what generates, no. Embeddings and counts repeat the model; what has none in its path has it."""
        return _PLACE.fullmatch(path) is None or last_segment(path).rpartition(b":")[2] not in _GENERATING

    def refusal_object(self, facts: Facts, status: int) -> dict[str, object]:
        """The error object; the SDK gives its user `code`, `status` and `message` of it.

        Final ones hold no digit but the code, which Google's clients need (reference/clients.md, finding 4).
        """
        name = "FAILED_PRECONDITION" if status == 400 else _STATUSES[status]
        details: list[object] = []
        if facts.invites:
            details.append({"@type": _TYPE + "RetryInfo", "retryDelay": _seconds(facts)})
        details.append(_error_info(facts.reason.value, _metadata(facts)))
        return _error(status, name, _sentence(facts), details)

    def error_object(self, status: int, code: str, message: str) -> dict[str, object]:
        """The same shape; the code is the reason of its ErrorInfo."""
        name = _STATUSES.get(status) or ("INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
        return _error(status, name, message, [_error_info(code, None)])

    def cut(self, refusal: Refusal, ask: Ask | None = None) -> bytes | None:
        """An event whose first key is `error`: only so the SDK raises (reference/clients.md, "google-genai").

        It begins with an empty line, which ends an event that the upstream left unfinished.
        """
        facts = Facts(refusal)
        told = self.refusal_object(facts, facts.status)
        return b"\n\ndata: " + encode(told) + b"\n\n"

    def with_model(self, path: bytes, body: bytes | None, model: str) -> tuple[bytes, bytes | None]:
        """The same request for another model: a name, or one with its collection (`tunedModels/…`)."""
        place = _PLACE.fullmatch(path)
        if place is None:
            return path, replace_model(body or b"", model)
        above, collection, asked = place.groups()
        resource = quote(_resource(collection.decode(), model), safe="/@").encode()
        if body is not None:
            body = replace_models(body, lambda named: _renamed(named, model))
        return above + resource + asked, body


def _error(status: int, name: str, message: str, details: list[object]) -> dict[str, object]:
    return {"error": {"code": status, "message": message, "status": name, "details": details}}


def _error_info(reason: str, metadata: dict[str, str] | None) -> dict[str, object]:
    told: dict[str, object] = {"@type": _TYPE + "ErrorInfo", "reason": reason.upper(), "domain": DOMAIN}
    if metadata:
        told["metadata"] = metadata
    return told


def _metadata(facts: Facts) -> dict[str, str]:
    """A map of strings, as ErrorInfo has it; where the answer is final, no more than what is advised."""
    advice = facts.advice
    if facts.is_final:
        return {} if advice is None else {"advice": ", ".join(members(advice))}
    told = {"scope": facts.scope}
    if advice is not None:
        told["advice"] = in_line(advice)
    if facts.limit:
        told["limit"] = facts.limit
    if facts.wait_ms:
        told["retryAfterMs"] = str(facts.wait_ms)
    return told


def _seconds(facts: Facts) -> str:
    """A google.protobuf.Duration in JSON."""
    return f"{facts.wait_ms / 1000:g}s"


def _sentence(facts: Facts) -> str:
    """The refusal in words. "Please retry in 12.345s." is Google's own way to say it: its SDK reads no
    header, so that Gemini CLI and many callers read the wait from RetryInfo or from these words."""
    words, more = facts.words, more_of(facts)
    if not facts.invites:
        return f"{words.fact} {words.advice}{more}"
    return f"{words.fact} Please retry in {_seconds(facts)}. {words.advice}{more}"


def _resource(collection: str, model: str) -> str:
    """What stands in the path for `model` where a resource of `collection` stood."""
    if "/" in model:
        return model
    return f"publishers/google/models/{model}" if collection == "endpoints" else f"models/{model}"


def _renamed(named: str, model: str) -> str:
    """A body's name of a model, which has the collection, and what is above it, or has not."""
    place = _RESOURCE.fullmatch(named)
    if place is None or place[2] is None:
        return model
    return (place[1] or "") + _resource(place[2], model)
