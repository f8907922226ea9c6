"""The `anthropic` package: messages."""

from __future__ import annotations

from typing import Any

import anthropic
from driving import (
    ENOUGH_TOKENS,
    KEY,
    LONGEST_S,
    MODEL,
    PROMPT,
    TOOL,
    TOOL_DESCRIPTION,
    TOOL_SCHEMA,
    WEATHER,
    Ask,
    drive,
    said,
)


def ask(asked: Ask) -> dict[str, Any]:
    more: dict[str, Any] = {} if asked.patient else {"max_retries": 0}
    client = anthropic.Anthropic(
        base_url=asked.base, api_key=KEY, default_headers=asked.headers, timeout=LONGEST_S, **more
    )
    messages: list[Any] = [{"role": "user", "content": PROMPT}]
    options: dict[str, Any] = {"model": MODEL, "max_tokens": ENOUGH_TOKENS}
    if asked.ask == "streamed":
        with client.messages.stream(messages=messages, **options) as stream:
            pieces = list(stream.text_stream)
        return said("".join(pieces), pieces=len(pieces))
    if asked.ask == "plain":
        return said(client.messages.create(messages=messages, **options).content[0].text)
    options["tools"] = [{"name": TOOL, "description": TOOL_DESCRIPTION, "input_schema": TOOL_SCHEMA}]
    message = client.messages.create(messages=messages, **options)
    (call,) = message.content
    result = {"type": "tool_result", "tool_use_id": call.id, "content": WEATHER}
    messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    answer = client.messages.create(messages=messages, **options)
    return said(answer.content[0].text, tool=call.input)


drive("anthropic", ask)
