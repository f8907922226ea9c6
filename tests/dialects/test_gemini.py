"""Gemini: the model in the path, facts as Google's own details, and errors as the SDK's readers need them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.core.verdict import Reason, Refusal
from proxy.dialects import Malformed, dialect_named
from tests.dialects.refusals import example, unbooked

GEMINI = dialect_named("gemini")
VERTEX = b"/v1/projects/p/locations/l"
GENERATE = b"/v1beta/models/gemini-2.5-pro:generateContent"


def error_of(body: bytes) -> dict[str, Any]:
    return json.loads(body)["error"]


def details(error: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each.pop("@type").rpartition(".")[2]: each for each in error["details"]}


@pytest.mark.parametrize(
    ("path", "model", "streamed"),
    [
        (GENERATE, "gemini-2.5-pro", False),
        (b"/v1beta/models/gemini-2.5-pro:streamGenerateContent", "gemini-2.5-pro", True),
        (b"/models/m:embedContent", "m", False),
        (VERTEX + b"/publishers/google/models/m:generateContent", "m", False),
        (VERTEX + b"/publishers/anthropic/models/claude@1:streamRawPredict", "claude@1", True),
        (VERTEX + b"/endpoints/7:streamGenerateContent", "endpoints/7", True),
        (b"/v1beta/tunedModels/mine:generateContent", "tunedModels/mine", False),
        (b"/v1beta/models/a%2Db%3AstreamGenerateContent", "a-b", True),
        (b"/v1beta/models/x/../m:generateContent/", "m", False),
        (b"/v1beta/models/gemini-2.5-pro", "", False),
        (b"/v1beta/models", "", False),
        (b"/v1beta/files/f:download", "", False),
        (b"/v1beta/interactions", "", False),
        (b"", "", False),
    ],
)
def test_the_path_names_the_model_and_whether_it_streams(path: bytes, model: str, streamed: bool) -> None:
    assert (GEMINI.model_in(path), GEMINI.streams(path)) == (model, streamed)


@pytest.mark.parametrize(
    ("path", "model", "renamed"),
    [
        (GENERATE, "m", b"/v1beta/models/m:generateContent"),
        (GENERATE, "tunedModels/t", b"/v1beta/tunedModels/t:generateContent"),
        (GENERATE, "a b?é", b"/v1beta/models/a%20b%3F%C3%A9:generateContent"),
        (b"/models/a/models/b%3agenerateContent", "m", b"/models/a/models/m%3agenerateContent"),
        (b"/v1beta/tunedModels/t:generateContent", "m", b"/v1beta/models/m:generateContent"),
        (
            VERTEX + b"/publishers/google/models/a:generateContent",
            "m@001",
            VERTEX + b"/publishers/google/models/m@001:generateContent",
        ),
        (
            VERTEX + b"/endpoints/7:generateContent",
            "m",
            VERTEX + b"/publishers/google/models/m:generateContent",
        ),
    ],
)
def test_another_model_is_put_into_the_path_and_no_body_is_needed(
    path: bytes, model: str, renamed: bytes
) -> None:
    assert not GEMINI.model_in_body(path)
    assert GEMINI.with_model(path, None, model) == (renamed, None)


@pytest.mark.parametrize(
    ("verb", "body", "changed"),
    [
        ("embedContent", {"model": "models/a", "content": 1}, {"model": "models/b", "content": 1}),
        ("embedContent", {"content": 1}, {"content": 1}),
        ("embedContent", {"model": "a"}, {"model": "b"}),
        (
            "batchEmbedContents",
            {"requests": [{"model": "models/a", "content": 1}, {"model": "tunedModels/c"}, {}]},
            {"requests": [{"model": "models/b", "content": 1}, {"model": "models/b"}, {}]},
        ),
        (
            "countTokens",
            {"generateContentRequest": {"model": "models/a", "contents": []}},
            {"generateContentRequest": {"model": "models/b", "contents": []}},
        ),
        (
            "countTokens",
            {"generate_content_request": {"model": "models/a"}},
            {"generate_content_request": {"model": "models/b"}},
        ),
        (
            "countTokens",
            {"model": "projects/p/locations/l/publishers/google/models/a"},
            {"model": "projects/p/locations/l/publishers/google/models/b"},
        ),
    ],
)
def test_a_body_that_repeats_the_model_is_changed_with_the_path(
    verb: str, body: dict[str, Any], changed: dict[str, Any]
) -> None:
    path = f"/v1beta/models/a:{verb}".encode()
    assert GEMINI.model_in_body(path)
    renamed, rewritten = GEMINI.with_model(path, json.dumps(body).encode(), "b")
    assert renamed == f"/v1beta/models/b:{verb}".encode()
    assert rewritten is not None
    assert json.loads(rewritten) == changed


@pytest.mark.parametrize("body", [b"", b"[]", b'{"requests": {}}', b'{"requests": [1]}', b'{"model": 7}'])
def test_a_body_that_cannot_be_changed_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        GEMINI.with_model(b"/v1beta/models/a:batchEmbedContents", body, "b")


def test_where_the_path_names_none_the_body_does() -> None:
    path = b"/v1beta/interactions"
    assert GEMINI.model_in_body(path)
    assert GEMINI.with_model(path, b'{"model":"a","input":"hi"}', "b") == (
        path,
        b'{"model":"b","input":"hi"}',
    )


@pytest.mark.parametrize(
    ("reason", "code", "status"),
    [
        (Reason.BUCKET_EMPTY, 429, "RESOURCE_EXHAUSTED"),
        (Reason.SHED, 429, "RESOURCE_EXHAUSTED"),
        (Reason.RETRY_BUDGET_SPENT, 429, "RESOURCE_EXHAUSTED"),
        (Reason.BREAKER_OPEN, 503, "UNAVAILABLE"),
        (Reason.DRAINING, 503, "UNAVAILABLE"),
        (Reason.UPSTREAM_FAILED, 502, "UNAVAILABLE"),
        (Reason.UPSTREAM_TIMEOUT, 504, "DEADLINE_EXCEEDED"),
        (Reason.TOO_DEAR, 400, "FAILED_PRECONDITION"),
        (Reason.RUN_HALTED, 400, "FAILED_PRECONDITION"),
    ],
)
def test_code_and_status_are_googles(reason: Reason, code: int, status: str) -> None:
    answer = GEMINI.refuse(example(reason), None)
    error = error_of(answer.body)
    assert (answer.status, error["code"], error["status"]) == (code, code, status)
    assert details(error)["ErrorInfo"]["reason"] == reason.upper()


def test_a_stop_as_429_is_one_in_the_body_too() -> None:
    error = error_of(GEMINI.refuse(example(Reason.TOO_DEAR), None, stop_status=429).body)
    assert (error["code"], error["status"]) == (429, "RESOURCE_EXHAUSTED")


def test_the_facts_are_details_as_google_writes_them() -> None:
    error = error_of(GEMINI.refuse(example(Reason.SHED), None).body)
    assert "Please retry in 12.345s." in error["message"]
    assert details(error) == {
        "RetryInfo": {"retryDelay": "12.345s"},
        "ErrorInfo": {
            "reason": "SHED",
            "domain": "backpressure",
            "metadata": {"scope": "caller:3fa9c1", "limit": "1 requests/3s", "retryAfterMs": "12345"},
        },
    }


@pytest.mark.parametrize(
    "refusal",
    [unbooked(Reason.BREAKER_OPEN), example(Reason.RETRY_BUDGET_SPENT), example(Reason.TOO_DEAR)],
    ids=lambda refusal: refusal.reason,
)
def test_who_should_not_return_by_itself_is_given_no_retry_info(refusal: Refusal) -> None:
    error = error_of(GEMINI.refuse(refusal, None).body)
    assert list(details(error)) == ["ErrorInfo"]
    assert "retry in" not in error["message"]


def test_a_cut_has_error_as_its_first_key_and_a_code() -> None:
    event = GEMINI.cut(example(Reason.UPSTREAM_FAILED))
    assert event is not None
    assert event.startswith(b'\n\ndata: {"error":{"code":502,')
