"""Pydantic AI: an agent on an OpenAI or an Anthropic model (`pydantic_ai_python.py openai|anthropic`)."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from driving import ENOUGH_TOKENS, KEY, LONGEST_S, MODEL, PROMPT, TOOL, WEATHER, Ask, drive, said
from pydantic_ai import Agent

DIALECT = sys.argv[1]
if DIALECT == "openai":
    import openai
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
else:
    import anthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider


def model(asked: Ask) -> Any:
    more: dict[str, Any] = {} if asked.patient else {"max_retries": 0}
    more |= {"default_headers": asked.headers, "timeout": LONGEST_S, "api_key": KEY}
    if DIALECT == "openai":
        client = openai.AsyncOpenAI(base_url=f"{asked.base}/v1", **more)
        return OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client))
    client = anthropic.AsyncAnthropic(base_url=asked.base, **more)
    return AnthropicModel(MODEL, provider=AnthropicProvider(anthropic_client=client))


async def talk(asked: Ask) -> dict[str, Any]:
    agent = Agent(model(asked), model_settings={"max_tokens": ENOUGH_TOKENS})
    if asked.ask == "streamed":
        async with agent.run_stream(PROMPT) as run:
            pieces = [piece async for piece in run.stream_text(delta=True, debounce_by=None)]
        return said("".join(pieces), pieces=len(pieces))
    if asked.ask == "plain":
        return said((await agent.run(PROMPT)).output)
    called: list[dict[str, str]] = []

    @agent.tool_plain(name=TOOL)
    def weather(city: str) -> str:
        """The weather in a city."""
        called.append({"city": city})
        return WEATHER

    answer = (await agent.run(PROMPT)).output
    return said(answer, tool=called[0])


drive("pydantic-ai-slim", lambda asked: asyncio.run(talk(asked)), "pydantic-ai")
