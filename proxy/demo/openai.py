"""The OpenAI dialect: chat completions, plain and streamed, and the list of models."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from proxy.demo.answers import EVENT_STREAM, Answer, Request, Stream, encode, failed, tokens_of, word
from proxy.demo.behaviour import Behaviour
from proxy.demo.calling import Offer, ToolCall, due

_MODELS: Final = ("demo-large", "demo-small")
_TYPES: Final = {400: "invalid_request_error", 404: "invalid_request_error", 429: "rate_limit_error"}
_CODES: Final = {404: "not_found", 429: "rate_limit_exceeded"}


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Chat(msgspec.Struct):
    """What of a request body changes the answer; the rest of it is not looked at."""

    model: str
    messages: list[msgspec.Raw]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: list[Offer] | None = None


_read_chat = msgspec.json.Decoder(_Chat).decode


def error_body(status: int, message: str) -> bytes:
    """An error in OpenAI's shape."""
    kind = _TYPES.get(status, "server_error")
    return encode({"error": {"message": message, "type": kind, "param": None, "code": _CODES.get(status)}})


def chat(request: Request, behaviour: Behaviour) -> Answer:
    """`POST /v1/chat/completions`: `stream_events` words, fewer if the request allows fewer tokens."""
    if request.method != "POST":
        return failed(error_body, 405, "Use POST.", allow="POST")
    try:
        asked = _read_chat(request.body)
        call = due(behaviour.calls, asked.tools, asked.messages)
    except msgspec.DecodeError as exc:
        return failed(error_body, 400, f"We could not read the body of your request: {exc}")
    allowed = asked.max_completion_tokens if asked.max_completion_tokens is not None else asked.max_tokens
    words = behaviour.stream_events if allowed is None else max(0, min(allowed, behaviour.stream_events))
    finish = "length" if words < behaviour.stream_events else "stop"
    content: str | None = "".join(word(index) for index in range(words))
    said: dict[str, Any] = {}
    if call is not None:
        words, finish, content, said = (
            1,
            "tool_calls",
            None,
            {"tool_calls": [_tool_call(request.number, call)]},
        )
    headers = ((b"x-request-id", b"req_demo_%d" % request.number),)
    given = tokens_of(request.body)
    usage = _usage(given, words, behaviour.cached_of(given))
    if asked.stream:
        with_usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
        deltas = (
            [encode({"tool_calls": [{"index": 0} | said["tool_calls"][0]]}).decode()]
            if said
            else (f'{{"content":"{word(index)}"}}' for index in range(words))
        )
        stream = _stream(request.number, asked.model, deltas, words, finish, usage if with_usage else None)
        return Answer(
            error_body,
            content_type=EVENT_STREAM,
            headers=headers,
            stream=stream,
            is_work=True,
            model=asked.model,
            tokens=(given, words),
        )
    body = encode(
        {
            "id": f"chatcmpl-demo{request.number}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": asked.model,
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": content,
                        "refusal": None,
                        **said,
                    },
                    "logprobs": None,
                    "finish_reason": finish,
                }
            ],
            "usage": usage,
        }
    )
    return Answer(error_body, body, headers=headers, is_work=True, model=asked.model, tokens=(given, words))


def _usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return usage | ({"prompt_tokens_details": {"cached_tokens": cached}} if cached else {})


def _tool_call(number: int, call: ToolCall) -> dict[str, Any]:
    function = {"name": call.tool, "arguments": call.as_text()}
    return {"id": f"call_demo{number}", "type": "function", "function": function}


def _stream(
    number: int, model: str, deltas: Iterable[str], count: int, finish: str, usage: dict[str, Any] | None
) -> Stream:
    common = (
        f'data: {{"id":"chatcmpl-demo{number}","object":"chat.completion.chunk","created":{int(time.time())},'
        f'"model":{encode(model).decode()},"choices":['
    )
    # With include_usage every chunk has the field, null until the last one.
    end = '],"usage":null}\n\n' if usage else "]}\n\n"

    def chunk(delta: str, finish_reason: str = "null") -> bytes:
        choice = f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish_reason}}}'
        return (common + choice + end).encode()

    def events() -> Iterator[bytes]:
        for delta in deltas:
            yield chunk(delta)

    tail = chunk("{}", f'"{finish}"')
    if usage:
        tail += common.encode() + b'],"usage":' + encode(usage) + b"}\n\n"
    head = chunk('{"role":"assistant","content":"","refusal":null}')
    return Stream(head, events(), count, tail + b"data: [DONE]\n\n")


def _models() -> bytes:
    """One list in two shapes: the fields of OpenAI and those of Anthropic, who share the path."""
    rows = [
        {
            "id": name,
            "object": "model",
            "created": 1_767_225_600,
            "owned_by": "demo",
            "type": "model",
            "display_name": name,
            "created_at": "2026-01-01T00:00:00Z",
        }
        for name in _MODELS
    ]
    return encode(
        {"object": "list", "data": rows, "has_more": False, "first_id": _MODELS[0], "last_id": _MODELS[-1]}
    )


_MODELS_BODY: Final = _models()


def models(request: Request, _behaviour: Behaviour) -> Answer:
    """`GET /v1/models`, answered at once and without a slot."""
    if request.method != "GET":
        return failed(error_body, 405, "Use GET.", allow="GET")
    return Answer(error_body, _MODELS_BODY)
