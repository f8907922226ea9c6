"""What an answer says it used, in one form for all APIs: no two of them give one name two meanings."""

from __future__ import annotations

from typing import Final

from proxy.dialects.shapes import GeminiUsage, Told, Usage

MOST_TOKENS: Final = 100_000_000
"""What says more was not counted by anybody: the largest context of any model is a hundredth of it."""


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
    if one is not None and 0 <= one <= MOST_TOKENS:
        return one
    return other if other is not None and 0 <= other <= MOST_TOKENS else None
