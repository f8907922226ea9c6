"""The Anthropic dialect: messages, plain and streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from proxy.demo.answers import EVENT_STREAM, Answer, Request, Stream, encode, failed, tokens_of, word
from proxy.demo.behaviour import Behaviour
from proxy.demo.calling import Offer, ToolCall, due

_TYPES: Final = {400: "invalid_request_error", 404: "not_found_error", 429: "rate_limit_error"}


class _Messages(msgspec.Struct):
    """What of a request body changes the answer; the rest of it is not looked at."""

    model: str
    messages: list[msgspec.Raw]
    max_tokens: int
    stream: bool | None = None
    tools: list[Offer] | None = None


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
        call = due(behaviour.calls, asked.tools, asked.messages)
    except msgspec.DecodeError as exc:
        return failed(error_body, 400, f"The body of the request could not be read: {exc}")
    words = max(0, min(asked.max_tokens, behaviour.stream_events))
    stop = "max_tokens" if words < behaviour.stream_events else "end_turn"
    if call is not None:
        words, stop = 1, "tool_use"
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
            stream=_stream(message, words, stop)
            if call is None
            else _stream_call(message, request.number, call),
            is_work=True,
            model=asked.model,
            tokens=(given, words),
        )
    text = "".join(word(index) for index in range(words))
    said: dict[str, Any] = {"type": "text", "text": text}
    message["content"] = [said if call is None else _tool_use(request.number, call)]
    message["stop_reason"] = stop
    message["usage"] = read | {"output_tokens": words}
    return Answer(
        error_body, encode(message), headers=headers, is_work=True, model=asked.model, tokens=(given, words)
    )


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + encode({"type": name} | fields) + b"\n\n"


def _tool_use(number: int, call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_demo{number}", "name": call.tool, "input": call.arguments}


def _stream_call(message: dict[str, Any], number: int, call: ToolCall) -> Stream:
    block = _tool_use(number, call) | {"input": {}}
    head = _event("message_start", {"message": message}) + _event(
        "content_block_start", {"index": 0, "content_block": block}
    )
    part = {"type": "input_json_delta", "partial_json": call.as_text()}
    event = _event("content_block_delta", {"index": 0, "delta": part})
    return Stream(head, iter([event]), 1, _tail("tool_use", 1))


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
    return Stream(head, events(), words, _tail(stop, words))


def _tail(stop: str, words: int) -> bytes:
    delta = {"delta": {"stop_reason": stop, "stop_sequence": None}, "usage": {"output_tokens": words}}
    return (
        _event("content_block_stop", {"index": 0})
        + _event("message_delta", delta)
        + _event("message_stop", {})
    )
