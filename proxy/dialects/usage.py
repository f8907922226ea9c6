"""The JSON in which an answer says what it used.

One form reads all of them, for no two APIs give one name two meanings. Only declared fields are decoded.
"""

from __future__ import annotations

from typing import Final

import msgspec

MOST_TOKENS: Final = 100_000_000
"""What says more was not counted by anybody: the largest context of any model is a hundredth of it."""


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, gc=False):
    """The numbers of one `usage` object: Chat Completions says prompt and completion, others otherwise."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class GeminiUsage(msgspec.Struct, gc=False, rename="camel"):
    """The numbers of one `usageMetadata` object. The cached ones are among those of the prompt."""

    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None
    total_token_count: int | None = None


class _Inner(msgspec.Struct, gc=False):
    usage: Usage | None = None


class Told(msgspec.Struct, gc=False):
    """An answer, or one event of a stream: OpenAI's Responses events wrap it as `response`, Anthropic's
    first event as `message`; Gemini has a form of its own."""

    usage: Usage | None = None
    response: _Inner | None = None
    message: _Inner | None = None
    gemini: GeminiUsage | None = msgspec.field(name="usageMetadata", default=None)


class Chunk(msgspec.Struct, gc=False):
    """Of an event of Chat Completions: what tells the one that carries the usage from all others."""

    choices: list[msgspec.Raw] | None = None
    usage: dict[str, msgspec.Raw] | None = None


class Spent:
    """What one answer, or one event, says; None where it says nothing, or what cannot be true.

    `input` holds neither `cached` nor what `apart` says of it: read from a cache, and besides what the API
    calls its input (Anthropic), so that its rate limits do not count it.
    """

    __slots__ = ("apart", "cached", "input", "output", "written")

    def __init__(self) -> None:
        self.input: int | None = None
        self.output: int | None = None
        self.cached: int | None = None
        self.written: int | None = None
        self.apart = False


TOLD: Final = msgspec.json.Decoder(Told)
TOLD_IN_PARTS: Final = msgspec.json.Decoder(list[Told])
CHUNK: Final = msgspec.json.Decoder(Chunk)


def spent(told: Told) -> Spent | None:
    """What an answer or an event says, in one form; None where it says nothing."""
    if told.gemini is not None:
        return _of_gemini(told.gemini)
    for inner in (told.response, told.message):
        if inner is not None and inner.usage is not None:
            return _of(inner.usage)
    return None if told.usage is None else _of(told.usage)


def _of(usage: Usage) -> Spent:
    found = Spent()
    found.input = _first(usage.prompt_tokens, usage.input_tokens)
    found.output = _first(usage.completion_tokens, usage.output_tokens)
    details = usage.prompt_tokens_details or usage.input_tokens_details
    if details is not None:
        found.cached = _first(details.cached_tokens, None)
    read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    if read is not None or written is not None:  # besides `input_tokens`, as Anthropic counts
        found.apart = True
        found.cached, found.written = _first(read, None), _first(written, None)
        if found.input is not None:
            found.input += found.written or 0
    elif found.cached is not None and found.input is not None:
        found.cached = min(found.cached, found.input)
        found.input -= found.cached
    return found


def _of_gemini(usage: GeminiUsage) -> Spent:
    found = Spent()
    prompt, tools = _first(usage.prompt_token_count, None), _first(usage.tool_use_prompt_token_count, None)
    written, thought = _first(usage.candidates_token_count, None), _first(usage.thoughts_token_count, None)
    total = _first(usage.total_token_count, None)
    found.cached = _first(usage.cached_content_token_count, None)
    if prompt is not None:
        given = prompt + (tools or 0)
        found.cached = None if found.cached is None else min(found.cached, prompt)
        found.input = given - (found.cached or 0)
        if written is None and thought is None and total is not None:
            found.output = max(0, total - given)
    if written is not None or thought is not None:
        found.output = (written or 0) + (thought or 0)
    return found


def _first(one: int | None, other: int | None) -> int | None:
    """The first that was told and can be true."""
    for tokens in (one, other):
        if tokens is not None and 0 <= tokens <= MOST_TOKENS:
            return tokens
    return None
