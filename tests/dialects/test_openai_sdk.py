"""The real `openai` SDK against our answers: its typed errors, its reading of the wait, its streams."""

from __future__ import annotations

import openai
import pytest

from proxy.core.verdict import Reason, Refusal, status_of
from proxy.dialects import Answer, dialect_named
from tests.dialects.refusals import FINAL, example
from tests.dialects.serving import serving

OPENAI = dialect_named("openai")
RAISED = {
    400: openai.BadRequestError,
    429: openai.RateLimitError,
    502: openai.InternalServerError,
    503: openai.InternalServerError,
    504: openai.InternalServerError,
}
CHUNK = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"half"},"finish_reason":null}]}\n\n'
)


async def error_of(answer: Answer) -> openai.APIStatusError:
    async with (
        serving(lambda method, body: answer) as url,
        openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client,
    ):
        with pytest.raises(openai.APIStatusError) as raised:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    return raised.value


@pytest.mark.parametrize("reason", list(Reason))
async def test_a_refusal_raises_the_sdks_own_error_with_our_words(reason: Reason) -> None:
    error = await error_of(OPENAI.refuse(example(reason), None))
    assert type(error) is RAISED[status_of(reason)]
    assert error.response.headers["x-backpressure-reason"] == reason
    assert isinstance(error.body, dict)
    assert error.body["backpressure"]["reason"] == reason
    assert error.body["message"] in str(error)
    assert error.param is None
    assert (error.type == "insufficient_quota") is (reason in FINAL)
    assert error.code


@pytest.mark.parametrize("reason", [Reason.BUCKET_EMPTY, Reason.BREAKER_OPEN, Reason.UPSTREAM_TIMEOUT])
async def test_the_sdk_would_wait_the_milliseconds_told(reason: Reason) -> None:
    error = await error_of(OPENAI.refuse(Refusal(reason, "route:chat", 2.3456), None))
    async with openai.AsyncOpenAI(base_url="http://127.0.0.1", api_key="k") as client:
        assert client._should_retry(error.response)
        assert client._parse_retry_after_header(error.response.headers) == 2.346


@pytest.mark.parametrize("answer", [OPENAI.refuse(example(reason), None) for reason in FINAL])
async def test_the_sdk_takes_a_final_refusal_as_final(answer: Answer) -> None:
    error = await error_of(answer)
    async with openai.AsyncOpenAI(base_url="http://127.0.0.1", api_key="k") as client:
        assert not client._should_retry(error.response)


async def test_a_failed_upstream_without_room_for_retries_is_final_too() -> None:
    error = await error_of(OPENAI.refuse(Refusal(Reason.UPSTREAM_FAILED, "upstream:openai"), None))
    async with openai.AsyncOpenAI(base_url="http://127.0.0.1", api_key="k") as client:
        assert not client._should_retry(error.response)


@pytest.mark.parametrize(
    ("torn", "told"),
    [(b"", True), (b": keep-ali", True), (b'data: {"id":"c","ch', False)],
    ids=["between frames", "in a comment", "in a frame"],
)
async def test_a_cut_stream_raises_instead_of_ending_early(torn: bytes, told: bool) -> None:
    cut = OPENAI.cut(example(Reason.UPSTREAM_FAILED))
    assert cut is not None
    answer = Answer(200, [(b"content-type", b"text/event-stream")], CHUNK + torn + cut)
    async with (
        serving(lambda method, body: answer) as url,
        openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True
        )
        assert (await anext(stream)).choices[0].delta.content == "half"
        with pytest.raises((openai.APIError, ValueError)) as raised:
            await anext(stream)
    if told:
        assert "The upstream failed" in str(raised.value)


async def test_another_error_of_ours_has_its_code() -> None:
    error = await error_of(OPENAI.error(404, "unknown_route", "No route here."))
    assert type(error) is openai.NotFoundError
    assert (error.code, error.type) == ("unknown_route", "invalid_request_error")
