"""The JSON that tells of tokens: what a request allows, and what an answer says it used.

One form reads all of them, for no two APIs give one name two meanings. Only declared fields are decoded.
"""

from __future__ import annotations

from typing import Final

import msgspec

MOST_TOKENS: Final = 100_000_000
"""What says more was not counted by anybody: the largest context of any model is a hundredth of it."""


class Asked(msgspec.Struct, gc=False):
    """Of a request: the most output it allows, under each name that an API has for it, and how many times."""

    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None


class Usage(msgspec.Struct, gc=False):
    """The numbers of one `usage` object: Chat Completions says prompt and completion, others otherwise."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Inner(msgspec.Struct, gc=False):
    usage: Usage | None = None


class Told(msgspec.Struct, gc=False):
    """An answer, or one event of a stream: OpenAI's Responses events wrap it as `response`, Anthropic's
    first event as `message`."""

    usage: Usage | None = None
    response: _Inner | None = None
    message: _Inner | None = None


ASKED: Final = msgspec.json.Decoder(Asked)
TOLD: Final = msgspec.json.Decoder(Told)
