from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest

from proxy.demo import Outage, Refuse

HELLO = [{"role": "user", "content": "Is there room?"}]


@pytest.fixture
async def sdk(demo) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=demo.url + "/v1", api_key="sk-demo", max_retries=0) as client:
        yield client


async def test_the_sdk_reads_a_plain_answer_with_its_usage(sdk, demo):
    answer = await sdk.chat.completions.create(model="demo-large", messages=HELLO)
    assert answer.choices[0].message.content == "There is room for every call that waits"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "demo-large"
    assert answer.usage.completion_tokens == 8
    assert answer.usage.prompt_tokens == demo.upstream.ledger.entries[0].body_bytes // 4
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8
    assert answer._request_id == "req_demo_1"


async def test_the_sdk_reads_a_stream_of_as_many_words_as_events(sdk, demo):
    demo.upstream.behaviour.stream_events = 3
    stream = await sdk.chat.completions.create(model="demo-small", messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    words = [chunk.choices[0].delta.content for chunk in chunks]
    assert words == ["", "There", " is", " room", None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {chunk.model for chunk in chunks} == {"demo-small"}
    assert all(chunk.usage is None for chunk in chunks)


async def test_a_stream_ends_with_done(http, chat_body):
    answer = await http.post("/v1/chat/completions", json=chat_body(stream=True))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.text.endswith("}\n\ndata: [DONE]\n\n")


async def test_usage_comes_as_the_last_chunk_when_it_is_asked_for(sdk):
    stream = await sdk.chat.completions.create(
        model="demo-large", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 8
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_the_allowed_tokens_bound_the_answer(sdk):
    answer = await sdk.chat.completions.create(model="demo-large", messages=HELLO, max_tokens=2)
    assert answer.choices[0].message.content == "There is"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 2


async def test_an_answer_of_no_words_is_still_a_whole_stream(sdk, demo):
    demo.upstream.behaviour.stream_events = 0
    stream = await sdk.chat.completions.create(model="demo-large", messages=HELLO, stream=True)
    assert [chunk.choices[0].finish_reason async for chunk in stream] == [None, "stop"]


async def test_the_models_are_listed(sdk):
    assert [model.id async for model in sdk.models.list()] == ["demo-large", "demo-small"]


async def test_a_refusal_raises_the_sdks_rate_limit_error_with_the_time(sdk, demo):
    demo.upstream.behaviour.mode = Refuse(retry_after_s=1.2)
    with pytest.raises(openai.RateLimitError) as raised:
        await sdk.chat.completions.create(model="demo-large", messages=HELLO)
    assert raised.value.code == "rate_limit_exceeded"
    assert raised.value.response.headers["retry-after"] == "2"
    assert raised.value.response.headers["retry-after-ms"] == "1200"


async def test_an_outage_with_500_raises_the_sdks_server_error(sdk, demo):
    demo.upstream.behaviour.mode = Outage(answer="500")
    with pytest.raises(openai.InternalServerError) as raised:
        await sdk.chat.completions.create(model="demo-large", messages=HELLO)
    assert raised.value.type == "server_error"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages":[]}', b'{"model":7,"messages":[]}'])
async def test_a_body_that_is_no_chat_is_a_400_in_the_dialects_shape(http, demo, body):
    answer = await http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert demo.upstream.ledger.peak_in_flight == 0


async def test_a_model_name_is_escaped_in_every_chunk(sdk):
    name = 'a "quoted"\nname é'
    stream = await sdk.chat.completions.create(model=name, messages=HELLO, stream=True)
    assert {chunk.model async for chunk in stream} == {name}
