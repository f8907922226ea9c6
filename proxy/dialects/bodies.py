"""JSON bodies, read in part: the named fields are decoded and checked, the rest is only stepped over.

The one place that knows msgspec's ways to fail. Nothing of a body gets into a message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from proxy.dialects.base import Ask, Malformed

T = TypeVar("T")

JSON_ERRORS = (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError)
"""Everything that msgspec raises for bytes from outside, deep nesting included."""

encode = msgspec.json.Encoder().encode


class _Completion(msgspec.Struct, gc=False):
    """What OpenAI and Anthropic bodies have in common. Both take null for absent."""

    model: str | None = None
    stream: bool | None = None


_COMPLETION = msgspec.json.Decoder(_Completion)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LISTED = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_TEXT = msgspec.json.Decoder(str)


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
    """Model and stream of an OpenAI or Anthropic request. Raises Malformed."""
    asked = decode(_COMPLETION, body)
    return Ask(model=asked.model or "", stream=bool(asked.stream))


def replace_model(body: bytes, model: str) -> bytes:
    """The same JSON object with another `model`; every other member keeps its bytes and its place.

    A member given twice is sent once, with its last value, so that no two readers can differ over it.
    Raises Malformed where there is no model to replace.
    """
    fields = decode(_FIELDS, body)
    if not bytes(fields.get("model", b"")).startswith(b'"'):
        raise Malformed("The body names no model to replace.")
    fields["model"] = msgspec.Raw(encode(model))
    return encode(fields)


def replace_models(body: bytes, renamed: Callable[[str], str]) -> bytes:
    """A Gemini request with every model that it repeats from its path renamed; all else keeps its bytes.

    They stand at the top, in each of `requests` (embeddings) and in `generateContentRequest` (counting).
    Raises Malformed.
    """
    fields = decode(_FIELDS, body)
    _rename(fields, renamed)
    if "requests" in fields:
        listed = decode(_LISTED, bytes(fields["requests"]))
        for each in listed:
            _rename(each, renamed)
        fields["requests"] = msgspec.Raw(encode(listed))
    for name in ("generateContentRequest", "generate_content_request"):  # Google reads both
        if name in fields:
            asked = decode(_FIELDS, bytes(fields[name]))
            _rename(asked, renamed)
            fields[name] = msgspec.Raw(encode(asked))
    return encode(fields)


def _rename(fields: dict[str, msgspec.Raw], renamed: Callable[[str], str]) -> None:
    if "model" in fields:
        fields["model"] = msgspec.Raw(encode(renamed(decode(_TEXT, bytes(fields["model"])))))
