from __future__ import annotations

import json

import pytest

from proxy.demo import Cut, Outage, Refuse

M = "/v1beta/models/demo-large"
HELLO = {"contents": [{"role": "user", "parts": [{"text": "Is there room?"}]}]}
TEXT = "There is room for every call that waits"


def text_of(chunk):
    return chunk["candidates"][0]["content"]["parts"][0]["text"]


async def test_a_plain_answer_has_its_text_and_its_usage(http, demo):
    answer = (await http.post(f"{M}:generateContent", json=HELLO)).json()
    assert text_of(answer) == TEXT
    assert answer["candidates"][0]["finishReason"] == "STOP"
    assert answer["modelVersion"] == "demo-large"
    [entry] = demo.upstream.ledger.entries
    prompt = entry.body_bytes // 4
    assert answer["usageMetadata"] == {
        "promptTokenCount": prompt,
        "candidatesTokenCount": 8,
        "totalTokenCount": prompt + 8,
    }
    assert (entry.dialect, entry.model, entry.is_streamed, entry.is_work) == (
        "gemini", "demo-large", False, True,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["thinkingBudget", "thinking_budget"])
async def test_thoughts_and_cached_input_are_counted_apart(http, name):
    config = {"maxOutputTokens": 20, "thinkingConfig": {name: 1024}}
    body = HELLO | {"generationConfig": config, "cachedContent": "cachedContents/c"}
    answer = (await http.post(f"{M}:generateContent", json=body)).json()
    usage = answer["usageMetadata"]
    assert text_of(answer) == "There is room for"
    assert answer["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert (usage["thoughtsTokenCount"], usage["candidatesTokenCount"]) == (16, 4)
    assert usage["cachedContentTokenCount"] == usage["promptTokenCount"] // 2
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + 20


@pytest.mark.parametrize("words", [0, 1, 3])
async def test_a_stream_of_events_and_one_of_an_array_say_the_same(http, demo, words):
    demo.upstream.behaviour.stream_events = words
    events = await http.post(f"{M}:streamGenerateContent?alt=sse", json=HELLO)
    array = await http.post(f"{M}:streamGenerateContent", json=HELLO)
    assert events.headers["content-type"].startswith("text/event-stream")
    assert array.headers["content-type"] == "application/json; charset=UTF-8"
    *lines, end = events.text.split("\r\n\r\n")
    assert end == ""
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    told = [(text_of(chunk), chunk["usageMetadata"]) for chunk in chunks]
    assert told == [(text_of(chunk), chunk["usageMetadata"]) for chunk in array.json()]
    assert [usage["candidatesTokenCount"] for _, usage in told] == [*range(1, words + 1), words]
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
    assert [entry.is_streamed for entry in demo.upstream.ledger.entries] == [True, True]


async def test_embeddings_and_counts(http, demo):
    one = await http.post(f"{M}:embedContent", json={"content": {"parts": [{"text": "a"}]}})
    assert len(one.json()["embedding"]["values"]) == 8
    many = await http.post(f"{M}:batchEmbedContents", json={"requests": [{"content": {}}, {"content": {}}]})
    assert len(many.json()["embeddings"]) == 2
    counted = await http.post(f"{M}:countTokens", json=HELLO)
    assert counted.json() == {"totalTokens": len(json.dumps(HELLO, separators=(",", ":"))) // 4}
    assert [entry.is_work for entry in demo.upstream.ledger.entries] == [True, True, False]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/projects/p/locations/l/publishers/google/models/demo-large:generateContent",
        "/v1beta1/publishers/google/models/demo-large:generateContent",
        "/v1/models/demo-large:generateContent",
    ],
)
async def test_the_paths_of_vertex_ai_are_known_too(http, demo, path):
    assert text_of((await http.post(path, json=HELLO)).json()) == TEXT
    assert demo.upstream.ledger.entries[0].model == "demo-large"


async def test_the_models_are_listed_and_v1_models_stays_openais(http):
    listed = (await http.get("/v1beta/models")).json()["models"]
    assert [row["name"] for row in listed] == ["models/demo-large", "models/demo-small"]
    assert (await http.get(M)).json()["name"] == "models/demo-large"
    assert (await http.get("/v1beta/models/none")).json()["error"]["status"] == "NOT_FOUND"
    assert (await http.get("/v1/models")).json()["object"] == "list"


async def test_a_refusal_and_an_outage_are_in_googles_shape(http, demo):
    demo.upstream.behaviour.mode = Refuse(retry_after_s=1.2)
    refused = await http.post(f"{M}:generateContent", json=HELLO)
    assert (refused.status_code, refused.json()["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")
    demo.upstream.behaviour.mode = Outage(answer="500")
    failed = await http.post(f"{M}:streamGenerateContent", json=HELLO)
    assert [each["error"]["status"] for each in failed.json()] == ["INTERNAL"], (
        "an array, as it was asked for"
    )
    events = await http.post(f"{M}:streamGenerateContent?alt=sse", json=HELLO)
    assert events.json()["error"]["code"] == 500


async def test_a_cut_is_a_reset_within_an_event(bare, demo):
    demo.upstream.behaviour.mode = Cut()
    async with bare() as caller:
        caller.send("POST", f"{M}:streamGenerateContent?alt=sse", HELLO)
        came, was_reset = await caller.ends()
    assert was_reset
    assert 0 < came.count(b'"candidates"') < 8


@pytest.mark.parametrize(
    ("verb", "body", "status"),
    [
        ("generateContent", b"", 400),
        ("generateContent", b"[]", 400),
        ("generateContent", b'{"contents": 1}', 400),
        ("streamGenerateContent", b'{"contents": [], "generationConfig": {"maxOutputTokens": "x"}}', 400),
        ("batchEmbedContents", b'{"requests": [1]}', 400),
        ("embedContent", b"{}", 400),
        ("countTokens", b"no", 400),
        ("generateVideo", b"{}", 404),
    ],
)
async def test_a_wrong_request_is_told_so_and_takes_no_slot(http, demo, verb, body, status):
    answer = await http.post(f"{M}:{verb}", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, status)
    assert demo.upstream.ledger.peak_in_flight == 0


@pytest.mark.parametrize(("method", "path"), [("GET", f"{M}:generateContent"), ("POST", M)])
async def test_a_wrong_method_is_405(http, method, path):
    assert (await http.request(method, path)).status_code == 405
