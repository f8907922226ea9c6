"""LiteLLM: `completion`, its `num_retries` (`litellm_python.py num_retries`), and the Router (`… router`)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

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

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else its import asks the network for prices

import litellm

litellm.telemetry = False
litellm.suppress_debug_info = True
FUNCTION = {"name": TOOL, "description": TOOL_DESCRIPTION, "parameters": TOOL_SCHEMA}
HOW = sys.argv[1] if len(sys.argv) > 1 else "completion"
RETRIES = 2


def completing(asked: Ask) -> Callable[..., Any]:
    """`completion` as the ask wants it: through the SDK's own retries, litellm's, or a Router's."""
    dialect = asked.base.rpartition("/")[2]
    base = asked.base + "/v1" if dialect == "openai" else asked.base
    target = {
        "model": f"{dialect}/{MODEL}",
        "api_base": base,
        "api_key": KEY,
        "extra_headers": asked.headers,
        "timeout": LONGEST_S,
    }
    if HOW == "router":
        row = {"model_name": MODEL, "litellm_params": target}
        router = litellm.Router(
            model_list=[row], num_retries=RETRIES if asked.patient else 0, disable_cooldowns=True
        )
        return lambda **options: router.completion(model=MODEL, **options)
    if HOW == "num_retries" and asked.patient:
        target["num_retries"] = RETRIES
    elif not asked.patient:
        target["max_retries"] = 0
    return lambda **options: litellm.completion(**target, **options)


def ask(asked: Ask) -> dict[str, Any]:
    complete = completing(asked)
    messages: list[Any] = [{"role": "user", "content": PROMPT}]
    options: dict[str, Any] = {"max_tokens": ENOUGH_TOKENS}
    if asked.ask == "streamed":
        chunks = complete(messages=messages, stream=True, **options)
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
        return said("".join(pieces), pieces=len([piece for piece in pieces if piece]))
    if asked.ask == "plain":
        return said(complete(messages=messages, **options).choices[0].message.content)
    options["tools"] = [{"type": "function", "function": FUNCTION}]
    message = complete(messages=messages, **options).choices[0].message
    (call,) = message.tool_calls
    messages += [message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": WEATHER}]
    answer = complete(messages=messages, **options).choices[0].message.content
    return said(answer, tool=json.loads(call.function.arguments))


drive("litellm", ask)
