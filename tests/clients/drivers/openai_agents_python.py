"""The OpenAI Agents SDK, on the Responses API as it is by default."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from driving import ENOUGH_TOKENS, KEY, LONGEST_S, MODEL, PROMPT, WEATHER, Ask, drive, said

set_tracing_disabled(disabled=True)


async def talk(asked: Ask) -> dict[str, Any]:
    more: dict[str, Any] = {} if asked.patient else {"max_retries": 0}
    client = openai.AsyncOpenAI(
        base_url=f"{asked.base}/v1",
        api_key=KEY,
        default_headers=asked.headers,
        timeout=LONGEST_S,
        **more,
    )
    called: list[dict[str, str]] = []

    @function_tool
    def weather(city: str) -> str:
        """The weather in a city."""
        called.append({"city": city})
        return WEATHER

    agent = Agent(
        name="asker",
        model=OpenAIResponsesModel(MODEL, client),
        model_settings=ModelSettings(max_tokens=ENOUGH_TOKENS),
        tools=[weather] if asked.ask == "tool" else [],
    )
    if asked.ask == "streamed":
        run = Runner.run_streamed(agent, PROMPT)
        pieces = [
            event.data.delta
            async for event in run.stream_events()
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        ]
        return said("".join(pieces), pieces=len(pieces))
    answer = (await Runner.run(agent, PROMPT)).final_output
    return said(answer, tool=called[0]) if asked.ask == "tool" else said(answer)


drive("openai-agents", lambda asked: asyncio.run(talk(asked)))
