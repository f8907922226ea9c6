from __future__ import annotations

import pytest


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_a_tool_answers_what_it_was_asked(http, method):
    answer = await http.request(method, "/tools/weather/city%2Fof/day?of=today&of=x%20y", content=b"12345")
    assert answer.status_code == 200
    assert answer.json() == {
        "tool": "weather",
        "method": method,
        "path": "/tools/weather/city%2Fof/day",
        "query": "of=today&of=x%20y",
        "body_bytes": 5,
    }


async def test_a_head_is_answered_without_a_body(http):
    answer = await http.head("/tools/weather")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


async def test_an_answer_is_padded_to_the_size_asked_for(http, demo):
    demo.upstream.behaviour.tool_bytes = 300_000
    answer = await http.get("/tools/weather")
    assert len(answer.content) >= 300_000
    assert answer.json()["tool"] == "weather"


async def test_a_tool_without_a_name_is_a_404(http):
    assert (await http.get("/tools/")).status_code == 404


async def test_another_path_is_a_404_that_names_what_is_served(http, demo):
    answer = await http.get("/nowhere")
    assert answer.status_code == 404
    assert "/v1/chat/completions" in answer.json()["error"]["message"]
    assert demo.upstream.ledger.peak_in_flight == 0


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("GET", "/v1/messages", "POST"),
        ("POST", "/v1/models", "GET"),
        ("GET", "/mcp", "POST, DELETE"),
    ],
)
async def test_a_wrong_method_is_a_405_that_names_the_right_one(http, method, path, allow):
    answer = await http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
