from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest

from proxy.demo import Refuse
from proxy.demo.calling import ToolCall

CALL = ToolCall("weather", {"city": "Paris"})
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}


@pytest.fixture
async def sdk(demo) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=demo.url + "/v1", api_key="sk-demo", max_retries=0) as client:
        yield client


async def test_the_sdk_reads_a_plain_response_with_its_usage(sdk, demo):
    response = await sdk.responses.create(model="demo-large", input="Is there room?")
    assert response.output_text == "There is room for every call that waits"
    assert response.status == "completed"
    assert response.usage.input_tokens == demo.upstream.ledger.entries[0].body_bytes // 4
    assert response.usage.output_tokens == 8


async def test_the_sdk_reads_a_stream_whose_events_are_numbered_and_end_with_the_response(sdk):
    async with sdk.responses.stream(model="demo-large", input="Is there room?") as stream:
        events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "There is room for every call that waits"
    assert len(deltas) == 8
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage.output_tokens == 8


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_allowed_tokens_bound_the_response(sdk, streamed):
    asked = {"model": "demo-large", "input": "Hi", "max_output_tokens": 2}
    if streamed:
        last = [event async for event in await sdk.responses.create(**asked, stream=True)][-1]
        assert last.type == "response.incomplete"
        response = last.response
    else:
        response = await sdk.responses.create(**asked)
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output_text == "There is"


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_model_calls_an_offered_tool_once_and_then_answers(sdk, demo, streamed):
    demo.upstream.behaviour.calls = CALL
    asked = {"model": "demo-large", "tools": [TOOL]}
    items = [{"role": "user", "content": "What is the weather?"}]
    if streamed:
        async with sdk.responses.stream(input=items, **asked) as stream:
            response = await stream.get_final_response()
    else:
        response = await sdk.responses.create(input=items, **asked)
    (call,) = response.output
    assert (call.type, call.name, call.arguments) == ("function_call", "weather", '{"city":"Paris"}')
    items += [call, {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}]
    last = await sdk.responses.create(input=items, **asked)
    assert last.output_text == "There is room for every call that waits"


async def test_what_cannot_be_answered_is_an_error_in_openais_shape(sdk, demo, http):
    assert (await http.get("/v1/responses")).status_code == 405
    unread = await http.post("/v1/responses", content=b"{}")
    assert unread.status_code == 400
    assert unread.json()["error"]["type"] == "invalid_request_error"
    demo.upstream.behaviour.mode = Refuse(retry_after_s=2.0)
    with pytest.raises(openai.RateLimitError):
        await sdk.responses.create(model="demo-large", input="Hi")
