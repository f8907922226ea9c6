from __future__ import annotations

from collections.abc import AsyncIterator

import anthropic
import pytest

from proxy.demo import Outage, Refuse

HELLO = [{"role": "user", "content": "Is there room?"}]


@pytest.fixture
async def sdk(demo) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=demo.url, api_key="sk-demo", max_retries=0) as client:
        yield client


async def test_the_sdk_reads_a_plain_answer_with_its_usage(sdk, demo):
    answer = await sdk.messages.create(model="demo-large", messages=HELLO, max_tokens=100)
    assert answer.content[0].text == "There is room for every call that waits"
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens == 8
    assert answer.usage.input_tokens == demo.upstream.ledger.entries[0].body_bytes // 4
    assert answer._request_id == "req_demo_1"


async def test_the_sdk_assembles_a_streamed_message(sdk):
    async with sdk.messages.stream(model="demo-small", messages=HELLO, max_tokens=100) as stream:
        words = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    assert words == ["There", " is", " room", " for", " every", " call", " that", " waits"]
    assert message.model == "demo-small"
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 8


async def test_a_stream_has_the_events_of_the_protocol_in_order(http, demo, chat_body):
    demo.upstream.behaviour.stream_events = 2
    answer = await http.post("/v1/messages", json=chat_body(max_tokens=9, stream=True))
    names = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
    assert names == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_the_allowed_tokens_bound_the_answer(sdk):
    answer = await sdk.messages.create(model="demo-large", messages=HELLO, max_tokens=2)
    assert answer.content[0].text == "There is"
    assert answer.stop_reason == "max_tokens"


async def test_the_models_are_listed(sdk):
    assert [model.id async for model in sdk.models.list()] == ["demo-large", "demo-small"]


async def test_a_refusal_raises_the_sdks_rate_limit_error_with_the_time(sdk, demo):
    demo.upstream.behaviour.mode = Refuse(retry_after_s=3)
    with pytest.raises(anthropic.RateLimitError) as raised:
        await sdk.messages.create(model="demo-large", messages=HELLO, max_tokens=1)
    assert raised.value.type == "rate_limit_error"
    assert raised.value.response.headers["retry-after"] == "3"
    assert raised.value.response.headers["retry-after-ms"] == "3000"


async def test_an_outage_with_500_raises_the_sdks_server_error(sdk, demo):
    demo.upstream.behaviour.mode = Outage(answer="500")
    with pytest.raises(anthropic.InternalServerError) as raised:
        await sdk.messages.create(model="demo-large", messages=HELLO, max_tokens=1)
    assert raised.value.type == "api_error"


async def test_a_body_without_max_tokens_is_a_400_in_the_dialects_shape(http, chat_body):
    answer = await http.post("/v1/messages", json=chat_body())
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert "max_tokens" in answer.json()["error"]["message"]
