"""The real `anthropic` SDK against our answers: its typed errors, its reading of the wait, its streams."""

from __future__ import annotations

import anthropic
import pytest

from proxy.core.verdict import Reason, Refusal, status_of
from proxy.dialects import Answer, dialect_named
from tests.dialects.refusals import FINAL, example
from tests.dialects.serving import serving

ANTHROPIC = dialect_named("anthropic")
RAISED = {
    400: anthropic.BadRequestError,
    429: anthropic.RateLimitError,
    502: anthropic.InternalServerError,
    503: anthropic.InternalServerError,
    504: anthropic.InternalServerError,
}
START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message",'
    b'"role":"assistant","model":"c","content":[],"stop_reason":null,"stop_sequence":null,'
    b'"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
)


async def error_of(answer: Answer) -> anthropic.APIStatusError:
    async with (
        serving(lambda method, body: answer) as url,
        anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client,
    ):
        with pytest.raises(anthropic.APIStatusError) as raised:
            await client.messages.create(model="c", max_tokens=1, messages=[{"role": "user", "content": "x"}])
    return raised.value


@pytest.mark.parametrize("reason", list(Reason))
async def test_a_refusal_raises_the_sdks_own_error_with_our_words(reason: Reason) -> None:
    error = await error_of(ANTHROPIC.refuse(example(reason), None))
    assert isinstance(error, RAISED[status_of(reason)])
    assert error.response.headers["x-backpressure-reason"] == reason
    assert isinstance(error.body, dict)
    assert error.body["error"]["backpressure"]["reason"] == reason
    assert error.body["error"]["message"] in str(error)
    assert (error.type == "billing_error") is (reason in FINAL)


@pytest.mark.parametrize("reason", [Reason.BUCKET_EMPTY, Reason.BREAKER_OPEN, Reason.UPSTREAM_TIMEOUT])
async def test_the_sdk_would_wait_the_milliseconds_told(reason: Reason) -> None:
    error = await error_of(ANTHROPIC.refuse(Refusal(reason, "route:chat", 2.3456), None))
    async with anthropic.AsyncAnthropic(base_url="http://127.0.0.1", api_key="k") as client:
        assert client._should_retry(error.response)
        assert client._parse_retry_after_header(error.response.headers) == 2.346


@pytest.mark.parametrize("answer", [ANTHROPIC.refuse(example(reason), None) for reason in FINAL])
async def test_the_sdk_takes_a_final_refusal_as_final(answer: Answer) -> None:
    error = await error_of(answer)
    async with anthropic.AsyncAnthropic(base_url="http://127.0.0.1", api_key="k") as client:
        assert not client._should_retry(error.response)


@pytest.mark.parametrize(
    "torn",
    [b"", b": keep-ali", b"event: content_block_sta", b"event: content_block_start\n"],
    ids=["between events", "in a comment", "in a name", "after a name"],
)
async def test_a_cut_stream_raises_instead_of_ending_early(torn: bytes) -> None:
    cut = ANTHROPIC.cut(example(Reason.UPSTREAM_FAILED))
    assert cut is not None
    answer = Answer(200, [(b"content-type", b"text/event-stream")], START + torn + cut)
    async with (
        serving(lambda method, body: answer) as url,
        anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client,
    ):
        stream = await client.messages.create(
            model="c", max_tokens=1, messages=[{"role": "user", "content": "x"}], stream=True
        )
        assert (await anext(stream)).type == "message_start"
        with pytest.raises(anthropic.APIStatusError) as raised:
            await anext(stream)
    assert raised.value.type == "api_error"
    assert "The upstream failed" in str(raised.value)


async def test_another_error_of_ours_has_its_type() -> None:
    error = await error_of(ANTHROPIC.error(413, "body_too_large", "Too large."))
    assert type(error) is anthropic.RequestTooLargeError
    assert error.type == "request_too_large"
