"""The `openai` package: chat completions."""

from __future__ import annotations

import json
from typing import Any

import openai
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

FUNCTION = {"name": TOOL, "description": TOOL_DESCRIPTION, "parameters": TOOL_SCHEMA}


def ask(asked: Ask) -> dict[str, Any]:
    more: dict[str, Any] = {} if asked.patient else {"max_retries": 0}
    client = openai.OpenAI(
        base_url=f"{asked.base}/v1",
        api_key=KEY,
        default_headers=asked.headers,
        timeout=LONGEST_S,
        **more,
    )
    messages: list[Any] = [{"role": "user", "content": PROMPT}]
    options: dict[str, Any] = {"model": MODEL, "max_tokens": ENOUGH_TOKENS}
    if asked.ask == "streamed":
        chunks = client.chat.completions.create(messages=messages, stream=True, **options)
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
        return said("".join(pieces), pieces=len([piece for piece in pieces if piece]))
    if asked.ask == "plain":
        completion = client.chat.completions.create(messages=messages, **options)
        return said(completion.choices[0].message.content)
    options["tools"] = [{"type": "function", "function": FUNCTION}]
    message = client.chat.completions.create(messages=messages, **options).choices[0].message
    call = message.tool_calls[0]
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": WEATHER}]
    completion = client.chat.completions.create(messages=messages, **options)
    return said(completion.choices[0].message.content, tool=json.loads(call.function.arguments))


drive("openai", ask)
