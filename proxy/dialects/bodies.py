"""JSON bodies, read in part: the named fields are decoded and checked, the rest is only stepped over.

The one place that knows msgspec's ways to fail. Nothing of a body gets into a message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from proxy.dialects.base import Ask, Malformed
from proxy.dialects.shapes import ABSENT, COMPLETION, FIELDS, LISTED, STREAM_OPTIONS, TEXT

T = TypeVar("T")

JSON_ERRORS = (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError)
"""Everything that msgspec raises for bytes from outside, deep nesting included."""

encode = msgspec.json.Encoder().encode

MOST_ALLOWED: Final = 100_000_000
"""A body that allows more, or asks for more answers, is taken for one that allows so many."""


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The body as the decoder's type. Raises Malformed, in words that name the field and the type wanted."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        # msgspec names types and the path of declared fields here, never a value.
        raise Malformed(f"The body does not fit this API: {exc}.") from exc
    except RecursionError as exc:
        raise Malformed("The body is nested too deeply.") from exc
    except JSON_ERRORS as exc:
        raise Malformed("The body is not valid JSON in UTF-8.") from exc


def read_completion(body: bytes) -> Ask:
    """Model and stream of a request to a model, and what output it allows. Raises Malformed."""
    asked = decode(COMPLETION, body)
    bounds = [asked.max_tokens, asked.max_completion_tokens, asked.max_output_tokens]
    bounds.append(asked.max_tokens_to_sample)
    times = asked.n
    if asked.generation is not None:
        bounds.append(asked.generation.max_output_tokens)
        times = asked.generation.candidate_count
    allowed: int | None = None
    for bound in bounds:
        if bound is not ABSENT and (most := _whole(bound)) is not None:
            allowed = most
    return Ask(
        model=asked.model or "",
        stream=bool(asked.stream),
        allowed=allowed,
        answers=1 if times is ABSENT else max(1, _whole(times) or 1),
        tells=None if asked.stream_options is ABSENT else _tells(asked.stream_options),
    )


def ask_usage(body: bytes, ask: Ask) -> bytes:
    """The same request for a stream of Chat Completions that tells its usage at its end.

    `ask` is what was read of this very body. All other members keep their bytes and, but for a body that has
    `stream_options` already, where one given twice is sent once, their place. Raises Malformed.
    """
    if ask.tells is None:
        brace = body.index(b"{") + 1
        return body[:brace] + b'"stream_options":{"include_usage":true},' + body[brace:]
    fields = decode(FIELDS, body)
    stated = bytes(fields.get("stream_options", b"null"))
    options = decode(FIELDS, stated) if stated != b"null" else {}
    options["include_usage"] = msgspec.Raw(b"true")
    fields["stream_options"] = msgspec.Raw(encode(options))
    return encode(fields)


def replace_model(body: bytes, model: str) -> bytes:
    """The same JSON object with another `model`; every other member keeps its bytes and its place.

    A member given twice is sent once, with its last value, so that no two readers can differ over it.
    Raises Malformed where there is no model to replace.
    """
    fields = decode(FIELDS, body)
    if not bytes(fields.get("model", b"")).startswith(b'"'):
        raise Malformed("The body names no model to replace.")
    fields["model"] = msgspec.Raw(encode(model))
    return encode(fields)


def replace_models(body: bytes, renamed: Callable[[str], str]) -> bytes:
    """A Gemini request with every model that it repeats from its path renamed; all else keeps its bytes.

    They stand at the top, in each of `requests` (embeddings) and in `generateContentRequest` (counting).
    Raises Malformed.
    """
    fields = decode(FIELDS, body)
    _rename(fields, renamed)
    if "requests" in fields:
        listed = decode(LISTED, bytes(fields["requests"]))
        for each in listed:
            _rename(each, renamed)
        fields["requests"] = msgspec.Raw(encode(listed))
    for name in ("generateContentRequest", "generate_content_request"):  # Google reads both
        if name in fields:
            asked = decode(FIELDS, bytes(fields[name]))
            _rename(asked, renamed)
            fields[name] = msgspec.Raw(encode(asked))
    return encode(fields)


def _rename(fields: dict[str, msgspec.Raw], renamed: Callable[[str], str]) -> None:
    if "model" in fields:
        fields["model"] = msgspec.Raw(encode(renamed(decode(TEXT, bytes(fields["model"])))))


def _whole(raw: msgspec.Raw) -> int | None:
    """A number of tokens or answers; None where it is none. A negative one is 0."""
    try:
        number = int(raw)
    except ValueError:
        digits = bytes(raw)
        negative = digits.startswith(b"-")
        if not (digits[1:] if negative else digits).isdigit():
            return None
        return 0 if negative else MOST_ALLOWED  # it has thousands of digits
    return min(max(0, number), MOST_ALLOWED)


def _tells(raw: msgspec.Raw) -> bool:
    """Do these `stream_options` ask for the usage?"""
    try:
        options = STREAM_OPTIONS.decode(raw)
    except JSON_ERRORS:
        return True  # nothing that could be added to; the upstream will say so
    return options is not None and bool(options.include_usage)
