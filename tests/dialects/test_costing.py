"""Which calls cost tokens, and which of them their input only: one table for every dialect."""

from __future__ import annotations

import pytest

from proxy.dialects import DIALECTS, dialect_named

BOTH, INPUT, NONE = "input and output", "input", "a request"

VERTEX = "/v1/projects/p/locations/global/publishers"

COSTS = [
    ("openai", "/v1/chat/completions", BOTH),
    ("openai", "/v1/completions", BOTH),
    ("openai", "/v1/responses", BOTH),
    ("openai", "/v1/responses/compact", BOTH),
    ("openai", "/v1/embeddings", INPUT),
    ("openai", "/openai/deployments/gpt-4.1/chat/completions", BOTH),
    ("openai", "/embeddings/v1/chat/completions", BOTH),
    ("openai", "/v1/models", NONE),
    ("openai", "/v1/models/gpt-4.1", NONE),
    ("openai", "/v1/responses/r", NONE),
    ("openai", "/v1/responses/r/cancel", NONE),
    ("openai", "/v1/responses/r/input_items", NONE),
    ("openai", "/v1/responses/input_tokens", NONE),
    ("openai", "/v1/images/generations", NONE),
    ("openai", "/v1/images/edits", NONE),
    ("openai", "/v1/audio/speech", NONE),
    ("openai", "/v1/audio/transcriptions", NONE),
    ("openai", "/v1/audio/translations", NONE),
    ("openai", "/v1/moderations", NONE),
    ("openai", "/v1/files", NONE),
    ("openai", "/v1/batches", NONE),
    ("openai", "/v1/batches/b/cancel", NONE),
    ("openai", "/v1/threads/t/messages", NONE),
    ("anthropic", "/v1/messages", BOTH),
    ("anthropic", "/v1/complete", BOTH),
    ("anthropic", "/v1/messages/count_tokens", NONE),
    ("anthropic", "/v1/messages/batches", NONE),
    ("anthropic", "/v1/messages/batches/b/results", NONE),
    ("anthropic", "/v1/models", NONE),
    ("anthropic", "/v1/files", NONE),
    ("anthropic", "/", NONE),
    ("anthropic", "", NONE),
    ("gemini", "/v1beta/models/gemini-2.5-pro:generateContent", BOTH),
    ("gemini", "/v1beta/models/gemini-2.5-pro:streamGenerateContent", BOTH),
    ("gemini", "/v1beta/tunedModels/t:generateContent", BOTH),
    ("gemini", f"{VERTEX}/google/models/gemini-2.5-pro:generateContent", BOTH),
    ("gemini", f"{VERTEX}/anthropic/models/claude:streamRawPredict", BOTH),
    ("gemini", "/v1/projects/p/locations/l/endpoints/7:generateContent", BOTH),
    ("gemini", "/v1beta/interactions", BOTH),
    ("gemini", "/v1beta/openai/chat/completions", BOTH),
    ("gemini", "/v1beta/openai/embeddings", INPUT),
    ("gemini", "/v1beta/models/gemini-embedding-001:embedContent", INPUT),
    ("gemini", "/v1beta/models/gemini-embedding-001:batchEmbedContents", INPUT),
    ("gemini", f"{VERTEX}/google/models/text-embedding-005:predict", INPUT),
    ("gemini", "/v1beta/models/imagen-4:predict", NONE),
    ("gemini", "/v1beta/models/veo-3:predictLongRunning", NONE),
    ("gemini", "/v1beta/models/gemini-2.5-pro:countTokens", NONE),
    ("gemini", "/v1beta/models/gemini-2.5-pro:batchGenerateContent", NONE),
    ("gemini", "/v1beta/models/gemini-2.5-pro", NONE),
    ("gemini", "/v1beta/models", NONE),
    ("gemini", "/v1beta/files", NONE),
    ("gemini", "/v1beta/cachedContents", NONE),
    ("gemini", "", NONE),
    ("mcp", "/mcp", NONE),
    ("mcp", "/v1/messages", NONE),
    ("rest", "/v1/completions", NONE),
]

SPELT = [
    ("openai", "/v1/chat/completions/"),
    ("openai", "/v1/chat/%63ompletions"),
    ("openai", "/v1/chat%2Fcompletions"),
    ("openai", "/v1/models/../chat/completions/."),
    ("openai", "/../v1/chat//completions"),
    ("anthropic", "/v1/messages/x/.."),
    ("gemini", "/v1beta/models/m%3AgenerateContent"),
    ("gemini", "/v1beta/models/m:generat%65Content/"),
    ("gemini", "/v1beta/models/x/../m:streamGenerateContent"),
]


@pytest.mark.parametrize(("dialect", "path", "cost"), COSTS)
def test_what_a_call_costs(dialect: str, path: str, cost: str) -> None:
    speaks = dialect_named(dialect)
    assert speaks.costs_tokens(path.encode()) is (cost is not NONE)
    if cost is not NONE:
        assert speaks.answers_no_text(path.encode()) is (cost is INPUT)


@pytest.mark.parametrize(("dialect", "path"), SPELT)
def test_no_spelling_of_a_path_escapes_its_cost(dialect: str, path: str) -> None:
    assert dialect_named(dialect).costs_tokens(path.encode())


def test_every_dialect_stands_in_the_table() -> None:
    assert {dialect for dialect, _, _ in COSTS} == set(DIALECTS)
    costing = {dialect for dialect, _, cost in COSTS if cost is not NONE}
    assert costing == {name for name, dialect in DIALECTS.items() if dialect.is_model_api}
