"""The Anthropic dialect: messages, plain and streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from proxy.demo.answers import EVENT_STREAM, Answer, Request, Stream, encode, failed, tokens_of, word
from proxy.demo.behaviour import Behaviour

_TYPES: Final = {400: "invalid_request_error", 404: "not_found_error", 429: "rate_limit_error"}


class _Messages(msgspec.Struct):
    """What of a request body changes the answer; the rest of it is not looked at."""

    model: str
    messages: list[msgspec.Raw]
    max_tokens: int
    stream: bool | None = None


_read_messages = msgspec.json.Decoder(_Messages).decode


def error_body(status: int, message: str) -> bytes:
    """An error in Anthropic's shape."""
    return encode({"type": "error", "error": {"type": _TYPES.get(status, "api_error"), "message": message}})


def messages(request: Request, behaviour: Behaviour) -> Answer:
    """`POST /v1/messages`: `stream_events` words, fewer if the request allows fewer tokens."""
    if request.method != "POST":
        return failed(error_body, 405, "Use POST.", allow="POST")
    try:
        asked = _read_messages(request.body)
    except msgspec.DecodeError as exc:
        return failed(error_body, 400, f"The body of the request could not be read: {exc}")
    words = max(0, min(asked.max_tokens, behaviour.stream_events))
    stop = "max_tokens" if words < behaviour.stream_events else "end_turn"
    given = tokens_of(request.body)
    cached = behaviour.cached_of(given)
    read: dict[str, int] = {"input_tokens": given - cached}
    if cached:  # besides the input, unlike OpenAI
        read |= {"cache_creation_input_tokens": 0, "cache_read_input_tokens": cached}
    headers = ((b"request-id", b"req_demo_%d" % request.number),)
    message: dict[str, Any] = {
        "id": f"msg_demo{request.number}",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": read | {"output_tokens": 0},
    }
    if asked.stream:
        return Answer(
            error_body,
            content_type=EVENT_STREAM,
            headers=headers,
            stream=_stream(message, words, stop),
            is_work=True,
            model=asked.model,
            tokens=(given, words),
        )
    text = "".join(word(index) for index in range(words))
    message["content"] = [{"type": "text", "text": text}]
    message["stop_reason"] = stop
    message["usage"] = read | {"output_tokens": words}
    return Answer(
        error_body, encode(message), headers=headers, is_work=True, model=asked.model, tokens=(given, words)
    )


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + encode({"type": name} | fields) + b"\n\n"


def _stream(message: dict[str, Any], words: int, stop: str) -> Stream:
    def events() -> Iterator[bytes]:
        for index in range(words):
            yield (
                'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
                f'"delta":{{"type":"text_delta","text":"{word(index)}"}}}}\n\n'
            ).encode()

    head = (
        _event("message_start", {"message": message})
        + _event("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}})
        + _event("ping", {})
    )
    delta = {"delta": {"stop_reason": stop, "stop_sequence": None}, "usage": {"output_tokens": words}}
    tail = (
        _event("content_block_stop", {"index": 0})
        + _event("message_delta", delta)
        + _event("message_stop", {})
    )
    return Stream(head, events(), words, tail)
