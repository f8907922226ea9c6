"""The JSON of models' APIs, as far as it is read: what is declared here is decoded, the rest stepped over.

Declarations and no code, for msgspec must see these classes as they are: all that reads them is compiled.
"""

from __future__ import annotations

from typing import Final

import msgspec

# ── requests ─────────────────────────────────────────────────────────────────────────────────────────

ABSENT: Final = msgspec.Raw()
"""What a member is that the body does not have."""


class Allowing(msgspec.Struct, gc=False, rename="camel"):
    max_output_tokens: msgspec.Raw = ABSENT
    candidate_count: msgspec.Raw = ABSENT


class Completion(msgspec.Struct, gc=False):
    """What the bodies of all models' APIs have in common, each number under every name it has. All take null
    for absent. What is raw is the upstream's to complain of: it must not keep us from reading the rest.
    """

    model: str | None = None
    stream: bool | None = None
    stream_options: msgspec.Raw = ABSENT
    max_tokens: msgspec.Raw = ABSENT
    max_completion_tokens: msgspec.Raw = ABSENT
    max_output_tokens: msgspec.Raw = ABSENT
    max_tokens_to_sample: msgspec.Raw = ABSENT
    n: msgspec.Raw = ABSENT
    generation: Allowing | None = msgspec.field(name="generationConfig", default=None)


class StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


# ── what answers say they used ───────────────────────────────────────────────────────────────────────


class Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, gc=False):
    """The numbers of one `usage` object: Chat Completions says prompt and completion, others otherwise."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: Details | None = None
    input_tokens_details: Details | None = None
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


class Inner(msgspec.Struct, gc=False):
    usage: Usage | None = None


class Told(msgspec.Struct, gc=False):
    """An answer, or one event of a stream: OpenAI's Responses events wrap it as `response`, Anthropic's
    first event as `message`; Gemini has a form of its own."""

    usage: Usage | None = None
    response: Inner | None = None
    message: Inner | None = None
    gemini: GeminiUsage | None = msgspec.field(name="usageMetadata", default=None)


class Chunk(msgspec.Struct, gc=False):
    """Of an event of Chat Completions: what tells the one that carries the usage from all others."""

    choices: list[msgspec.Raw] | None = None
    usage: dict[str, msgspec.Raw] | None = None


# ── decoders ─────────────────────────────────────────────────────────────────────────────────────────

COMPLETION: Final = msgspec.json.Decoder(Completion)
FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
LISTED: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
TEXT: Final = msgspec.json.Decoder(str)
STREAM_OPTIONS: Final = msgspec.json.Decoder(StreamOptions | None)
TOLD: Final = msgspec.json.Decoder(Told)
TOLD_IN_PARTS: Final = msgspec.json.Decoder(list[Told])
CHUNK: Final = msgspec.json.Decoder(Chunk)
