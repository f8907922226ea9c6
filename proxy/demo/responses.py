"""The Responses API of OpenAI, plain and streamed: the same words as a chat completion, in its own events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec

from proxy.demo.answers import EVENT_STREAM, Answer, Request, Stream, encode, failed, tokens_of, word
from proxy.demo.behaviour import Behaviour
from proxy.demo.calling import Offer, ToolCall, due
from proxy.demo.openai import error_body


class _Response(msgspec.Struct):
    """What of a request body changes the answer; the rest of it is not looked at."""

    model: str
    input: str | list[msgspec.Raw]
    stream: bool | None = None
    max_output_tokens: int | None = None
    tools: list[Offer] | None = None


_read = msgspec.json.Decoder(_Response).decode


def respond(request: Request, behaviour: Behaviour) -> Answer:
    """`POST /v1/responses`: `stream_events` words, fewer if fewer tokens are allowed, or a tool call."""
    if request.method != "POST":
        return failed(error_body, 405, "Use POST.", allow="POST")
    try:
        asked = _read(request.body)
        turns = asked.input if isinstance(asked.input, list) else []
        call = due(behaviour.calls, asked.tools, turns)
    except msgspec.DecodeError as exc:
        return failed(error_body, 400, f"We could not read the body of your request: {exc}")
    allowed = asked.max_output_tokens
    words = behaviour.stream_events if allowed is None else max(0, min(allowed, behaviour.stream_events))
    whole = words == behaviour.stream_events or call is not None
    item = _call(request.number, call) if call is not None else _message(request.number, words)
    used = words if call is None else 1
    given = tokens_of(request.body)
    begun = _response(request.number, asked.model)
    ended = begun | {
        "status": "completed" if whole else "incomplete",
        "incomplete_details": None if whole else {"reason": "max_output_tokens"},
        "output": [item],
        "usage": _usage(given, used, behaviour.cached_of(given)),
    }
    headers = ((b"x-request-id", b"req_demo_%d" % request.number),)
    if not asked.stream:
        return Answer(
            error_body, encode(ended), headers=headers, is_work=True, model=asked.model, tokens=(given, used)
        )
    stream = _Events().stream(begun, item, words if call is None else 0, ended)
    return Answer(
        error_body,
        content_type=EVENT_STREAM,
        headers=headers,
        stream=stream,
        is_work=True,
        model=asked.model,
        tokens=(given, used),
    )


def _response(number: int, model: str) -> dict[str, Any]:
    return {
        "id": f"resp_demo{number}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
    }


def _message(number: int, words: int) -> dict[str, Any]:
    text = "".join(word(index) for index in range(words))
    part = {"type": "output_text", "text": text, "annotations": []}
    return {
        "id": f"msg_demo{number}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [part],
    }


def _call(number: int, call: ToolCall) -> dict[str, Any]:
    return {
        "id": f"fc_demo{number}",
        "type": "function_call",
        "status": "completed",
        "call_id": f"call_demo{number}",
        "name": call.tool,
        "arguments": call.as_text(),
    }


def _usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }


class _Events:
    """The events of one stream, numbered from 0 as they are made."""

    def __init__(self) -> None:
        self._number = 0

    def stream(
        self, begun: dict[str, Any], item: dict[str, Any], words: int, ended: dict[str, Any]
    ) -> Stream:
        """A message arrives word by word, a tool call (`words` 0) in one piece."""
        place = {"output_index": 0, "item_id": item["id"]}
        unsaid: dict[str, Any] = {"content": []} if item["type"] == "message" else {"arguments": ""}
        opened = item | {"status": "in_progress"} | unsaid
        head = (
            self._event("response.created", response=begun)
            + self._event("response.in_progress", response=begun)
            + self._event("response.output_item.added", output_index=0, item=opened)
        )
        if item["type"] == "message":
            empty = {"type": "output_text", "text": "", "annotations": []}
            head += self._event("response.content_part.added", content_index=0, part=empty, **place)
        return Stream(head, self._deltas(item, words, place, ended), max(words, 1) + 1, b"")

    def _deltas(
        self, item: dict[str, Any], words: int, place: dict[str, Any], ended: dict[str, Any]
    ) -> Iterator[bytes]:
        if item["type"] == "message":
            part = item["content"][0]
            for index in range(words):
                yield self._event(
                    "response.output_text.delta", content_index=0, delta=word(index), logprobs=[], **place
                )
            done = self._event(
                "response.output_text.done", content_index=0, text=part["text"], logprobs=[], **place
            ) + self._event("response.content_part.done", content_index=0, part=part, **place)
        else:
            arguments = item["arguments"]
            yield self._event("response.function_call_arguments.delta", delta=arguments, **place)
            done = self._event(
                "response.function_call_arguments.done", arguments=arguments, name=item["name"], **place
            )
        # Made last, for each event has the number of its place in the stream.
        yield (
            done
            + self._event("response.output_item.done", output_index=0, item=item)
            + self._event(f"response.{ended['status']}", response=ended)
        )

    def _event(self, kind: str, /, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._number} | fields
        self._number += 1
        return b"event: " + kind.encode() + b"\ndata: " + encode(event) + b"\n\n"
