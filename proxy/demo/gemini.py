"""The Gemini dialect: content generated whole, as events or as one array, embeddings, counts and models.

Under the paths of the Gemini API (`/v1beta/models/M:generateContent`) and of Vertex AI (`/v1/projects/…`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote

import msgspec

from proxy.demo.answers import EVENT_STREAM, Answer, Request, Stream, encode, failed, tokens_of, word
from proxy.demo.behaviour import Behaviour
from proxy.demo.calling import Offer, ToolCall, due

MOST_THOUGHTS: Final = 16
"""Tokens thought before an answer, if the request has a budget for as many."""

CACHED_SHARE: Final = 2
"""Of a request that names cached content, so many parts of its input are new or cached: half and half."""

DIMENSIONS: Final = 8

_ARRAY: Final = b"application/json; charset=UTF-8"
_STATUSES: Final = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
_MODELS: Final = ("demo-large", "demo-small")
_PATH: Final = re.compile(r"/v1(?:beta|beta1|alpha)?(?:/.+)?/models(?:/([^/:]+)(?::([A-Za-z]+))?)?")


class Asked(NamedTuple):
    """What a path asks of which model; "" for a list of models, or for one of them."""

    model: str
    verb: str


class _Thinking(msgspec.Struct):
    """Both spellings that Google reads; google-genai 3.4 sends this one as it is in Python."""

    thinkingBudget: int | None = None  # noqa: N815
    thinking_budget: int | None = None

    @property
    def budget(self) -> int:
        """The tokens it may think for."""
        return self.thinkingBudget or self.thinking_budget or 0


class _Config(msgspec.Struct, rename="camel"):
    max_output_tokens: int | None = None
    thinking_config: _Thinking | None = None


class _Tools(msgspec.Struct, rename="camel"):
    function_declarations: list[Offer] = []


class _Content(msgspec.Struct, rename="camel"):
    """What of a request body changes the answer; the rest of it is not looked at."""

    contents: list[msgspec.Raw]
    generation_config: _Config | None = None
    cached_content: str | None = None
    tools: list[_Tools] = []


class _Embedding(msgspec.Struct):
    content: msgspec.Raw


class _Embeddings(msgspec.Struct):
    requests: list[_Embedding]


_read_content = msgspec.json.Decoder(_Content).decode
_read_embedding = msgspec.json.Decoder(_Embedding).decode
_read_embeddings = msgspec.json.Decoder(_Embeddings).decode
_read_any = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def asked_in(path: str) -> Asked | None:
    """What a path asks for; None where it is not one of Gemini's. `/v1/models` is taken for OpenAI's."""
    found = _PATH.fullmatch(path)
    return None if found is None else Asked(unquote(found[1] or ""), found[2] or "")


def error_body(status: int, message: str) -> bytes:
    """An error in Google's shape."""
    name = _STATUSES.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
    return encode({"error": {"code": status, "message": message, "status": name}})


def _error_in_array(status: int, message: str) -> bytes:
    """As Google answers who asked for an array: with an array of one error."""
    return b"[" + error_body(status, message) + b"]"


def answer(request: Request, behaviour: Behaviour, asked: Asked) -> Answer:
    """What Gemini would answer to this path."""
    if not asked.verb:
        return _models(request, asked.model)
    if request.method != "POST":
        return failed(error_body, 405, "Use POST.", allow="POST")
    try:
        if asked.verb in ("generateContent", "streamGenerateContent"):
            return _generated(request, behaviour, asked)
        told = _counted_or_embedded(request, asked)
    except msgspec.DecodeError as exc:
        return failed(error_body, 400, f"Invalid JSON payload received: {exc}")
    if told is None:
        return failed(error_body, 404, "There is no such method of a model.")
    is_work = asked.verb != "countTokens"
    return Answer(error_body, encode(told), is_work=is_work, model=asked.model)


_VECTOR: Final = {"values": [round(index / DIMENSIONS, 3) for index in range(DIMENSIONS)]}


def _counted_or_embedded(request: Request, asked: Asked) -> dict[str, Any] | None:
    match asked.verb:
        case "countTokens":
            _read_any(request.body)
            return {"totalTokens": tokens_of(request.body)}
        case "embedContent":
            _read_embedding(request.body)
            return {"embedding": _VECTOR}
        case "batchEmbedContents":
            return {"embeddings": [_VECTOR for _ in _read_embeddings(request.body).requests]}
    return None


class _Plan(NamedTuple):
    """One answer before it is written: what both forms of it are made of."""

    model: str
    number: int
    words: int
    finish: str
    prompt: int
    cached: int
    thoughts: int
    call: ToolCall | None = None

    @property
    def tokens(self) -> tuple[int, int]:
        """What it costs: input, and output with what was thought."""
        return self.prompt, self.words + self.thoughts

    def usage(self, words: int) -> dict[str, int]:
        """`usageMetadata` after so many words. A part that is none is left out, as Google leaves it out."""
        told = {"promptTokenCount": self.prompt, "candidatesTokenCount": words}
        told["totalTokenCount"] = self.prompt + words + self.thoughts
        if self.cached:
            told["cachedContentTokenCount"] = self.cached
        if self.thoughts:
            told["thoughtsTokenCount"] = self.thoughts
        return told

    def chunk(self, text: str, words: int, finish: str = "") -> bytes:
        """A GenerateContentResponse."""
        part: dict[str, Any] = {"text": text}
        if self.call is not None:
            part = {"functionCall": {"name": self.call.tool, "args": self.call.arguments}}
        candidate: dict[str, Any] = {"content": {"parts": [part], "role": "model"}, "index": 0}
        if finish:
            candidate["finishReason"] = finish
        return encode(
            {
                "candidates": [candidate],
                "usageMetadata": self.usage(words),
                "modelVersion": self.model,
                "responseId": f"demo{self.number}",
            }
        )


def _generated(request: Request, behaviour: Behaviour, asked: Asked) -> Answer:
    """`stream_events` words, fewer if the request allows fewer tokens; thoughts count among those allowed."""
    body = _read_content(request.body)
    config = body.generation_config or _Config()
    most = behaviour.stream_events + MOST_THOUGHTS
    allowed = most if config.max_output_tokens is None else max(0, min(config.max_output_tokens, most))
    budget = config.thinking_config.budget if config.thinking_config else 0
    thoughts = min(max(0, budget), MOST_THOUGHTS, allowed)
    words = min(behaviour.stream_events, allowed - thoughts)
    call = due(
        behaviour.calls, [each for tool in body.tools for each in tool.function_declarations], body.contents
    )
    if call is not None:
        words = 1  # all of it in one piece
    prompt = tokens_of(request.body)
    plan = _Plan(
        asked.model,
        request.number,
        words,
        "MAX_TOKENS" if words < behaviour.stream_events and call is None else "STOP",
        prompt,
        prompt // CACHED_SHARE if body.cached_content else behaviour.cached_of(prompt),
        thoughts,
        call,
    )
    if asked.verb == "generateContent":
        text = "".join(word(index) for index in range(words))
        whole = plan.chunk(text, words, plan.finish)
        return Answer(error_body, whole, is_work=True, model=asked.model, tokens=plan.tokens)
    events = parse_qs(request.query).get("alt") == ["sse"]
    return Answer(
        error_body if events else _error_in_array,
        content_type=EVENT_STREAM if events else _ARRAY,
        stream=_events(plan) if events else _array(plan),
        is_work=True,
        model=asked.model,
        tokens=plan.tokens,
    )


def _events(plan: _Plan) -> Stream:
    def events() -> Iterator[bytes]:
        for index in range(plan.words):
            yield b"data: " + plan.chunk(word(index), index + 1) + b"\r\n\r\n"

    tail = b"data: " + plan.chunk("", plan.words, plan.finish) + b"\r\n\r\n"
    return Stream(b"", events(), plan.words, tail)


def _array(plan: _Plan) -> Stream:
    def events() -> Iterator[bytes]:
        for index in range(plan.words):
            yield plan.chunk(word(index), index + 1) + b",\r\n"

    return Stream(b"[", events(), plan.words, plan.chunk("", plan.words, plan.finish) + b"]")


def _models(request: Request, model: str) -> Answer:
    """One model, or the list of them, answered at once and without a slot."""
    if request.method != "GET":
        return failed(error_body, 405, "Use GET.", allow="GET")
    if model and model not in _MODELS:
        return failed(error_body, 404, "There is no such model.")
    rows = [{"name": f"models/{name}", "displayName": name, "version": "1"} for name in _MODELS]
    named = next((row for row in rows if row["displayName"] == model), None)
    return Answer(error_body, encode(named or {"models": rows}))
