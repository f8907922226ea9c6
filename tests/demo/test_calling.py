"""The model calls a tool where one is offered, in the words of chat completions and of messages."""

from __future__ import annotations

import anthropic
import openai
import pytest

from proxy.demo.calling import ToolCall

CALL = ToolCall("weather", {"city": "Paris"})
ASKED = {"role": "user", "content": "What is the weather?"}
STREAMED = pytest.mark.parametrize("streamed", [False, True])
SAID = "There is room for every call that waits"


def function(name="weather"):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


@STREAMED
async def test_a_chat_calls_the_tool_once_and_then_answers(demo, streamed):
    demo.upstream.behaviour.calls = CALL
    async with openai.AsyncOpenAI(base_url=demo.url + "/v1", api_key="sk-demo", max_retries=0) as sdk:
        asked = {"model": "demo", "tools": [function()]}
        if streamed:
            async with sdk.chat.completions.stream(messages=[ASKED], **asked) as stream:
                choice = (await stream.get_final_completion()).choices[0]
        else:
            choice = (await sdk.chat.completions.create(messages=[ASKED], **asked)).choices[0]
        (call,) = choice.message.tool_calls
        assert choice.finish_reason == "tool_calls"
        assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Paris"}')
        result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}
        messages = [ASKED, choice.message.model_dump(include={"role", "tool_calls"}), result]
        last = await sdk.chat.completions.create(messages=messages, **asked)
        assert last.choices[0].message.content == SAID


@STREAMED
async def test_messages_call_the_tool_once_and_then_answer(demo, streamed):
    demo.upstream.behaviour.calls = CALL
    async with anthropic.AsyncAnthropic(base_url=demo.url, api_key="sk-demo", max_retries=0) as sdk:
        asked = {
            "model": "demo",
            "max_tokens": 64,
            "tools": [{"name": "weather", "input_schema": {"type": "object"}}],
        }
        if streamed:
            async with sdk.messages.stream(messages=[ASKED], **asked) as stream:
                message = await stream.get_final_message()
        else:
            message = await sdk.messages.create(messages=[ASKED], **asked)
        (call,) = message.content
        assert (call.type, call.name, call.input) == ("tool_use", "weather", {"city": "Paris"})
        assert message.stop_reason == "tool_use"
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny."}
        messages = [
            ASKED,
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": [result]},
        ]
        assert (await sdk.messages.create(messages=messages, **asked)).content[0].text == SAID


@pytest.mark.parametrize("tools", [[], [function("other")]])
async def test_a_tool_that_is_not_offered_is_not_called(demo, tools):
    demo.upstream.behaviour.calls = CALL
    async with openai.AsyncOpenAI(base_url=demo.url + "/v1", api_key="sk-demo", max_retries=0) as sdk:
        answer = await sdk.chat.completions.create(model="demo", messages=[ASKED], tools=tools or openai.omit)
        assert answer.choices[0].message.content == SAID
        assert answer.choices[0].message.tool_calls is None


@pytest.mark.parametrize("verb", ["generateContent", "streamGenerateContent"])
async def test_gemini_calls_the_tool_once_and_then_answers(demo, http, verb):
    demo.upstream.behaviour.calls = CALL
    path = f"/v1beta/models/demo:{verb}"
    contents = [{"role": "user", "parts": [{"text": "What is the weather?"}]}]
    asked = {"contents": contents, "tools": [{"functionDeclarations": [{"name": "weather"}]}]}

    async def parts():
        answer = (await http.post(path, json=asked)).json()
        chunks = answer if isinstance(answer, list) else [answer]
        return [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]]

    first, *_ = await parts()
    assert first == {"functionCall": {"name": "weather", "args": {"city": "Paris"}}}
    response = {"functionResponse": {"name": "weather", "response": {"result": "Sunny."}}}
    contents += [{"role": "model", "parts": [first]}, {"role": "user", "parts": [response]}]
    assert "".join(part["text"] for part in await parts()) == SAID
