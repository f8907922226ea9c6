"""LangChain's chat models: `langchain_python.py openai` or `… anthropic`."""

from __future__ import annotations

import sys
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
from langchain_core.messages import HumanMessage, ToolMessage

DIALECT = sys.argv[1]
if DIALECT == "openai":
    from langchain_openai import ChatOpenAI
else:
    from langchain_anthropic import ChatAnthropic


def model(asked: Ask) -> Any:
    more: dict[str, Any] = {} if asked.patient else {"max_retries": 0}
    more |= {"default_headers": asked.headers, "max_tokens": ENOUGH_TOKENS, "timeout": LONGEST_S}
    if DIALECT == "openai":
        return ChatOpenAI(base_url=f"{asked.base}/v1", api_key=KEY, model=MODEL, **more)
    return ChatAnthropic(base_url=asked.base, api_key=KEY, model=MODEL, **more)


def ask(asked: Ask) -> dict[str, Any]:
    chat = model(asked)
    messages: list[Any] = [HumanMessage(PROMPT)]
    if asked.ask == "streamed":
        pieces = [chunk.text for chunk in chat.stream(messages)]
        return said("".join(pieces), pieces=len([piece for piece in pieces if piece]))
    if asked.ask == "plain":
        return said(chat.invoke(messages).text)
    schema = {"title": TOOL, "description": TOOL_DESCRIPTION, **TOOL_SCHEMA}
    chat = chat.bind_tools([schema])
    message = chat.invoke(messages)
    (call,) = message.tool_calls
    messages += [message, ToolMessage(WEATHER, tool_call_id=call["id"])]
    return said(chat.invoke(messages).text, tool=call["args"])


drive(f"langchain-{DIALECT}", ask)
