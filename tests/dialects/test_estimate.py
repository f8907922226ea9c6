"""What a call is likely to cost, by its body and by what was learnt."""

from __future__ import annotations

import base64
import json
from random import Random

import pytest

from proxy.core.costs import DEFAULT_OUTPUT, ENOUGH, Costs
from proxy.dialects import dialect_named
from proxy.dialects.bodies import MOST_ALLOWED
from proxy.dialects.estimate import FILE_TOKENS, UNKNOWN_INPUT, estimate, size_of, size_unread
from proxy.peeking import read_if_any


def cost(body: bytes, costs: Costs | None = None, *, input_only: bool = False) -> tuple[float, float]:
    ask = read_if_any(dialect_named("openai"), body)
    found = estimate(costs or Costs(), "caller", ask.model, size_of(body), ask, input_only=input_only)
    assert found.tokens == found.input + found.output
    return found.input, found.output


@pytest.mark.parametrize(
    ("body", "output"),
    [
        (b"{}", DEFAULT_OUTPUT),
        (b'{"max_tokens": 7}', 7),
        (b'{"max_completion_tokens": 8}', 8),
        (b'{"max_output_tokens": 9}', 9),
        (b'{"max_tokens_to_sample": 6}', 6),
        (b'{"generationConfig": {"maxOutputTokens": 5, "candidateCount": 2}}', 10),
        (b'{"max_tokens": 7, "n": 3}', 21),
        (b'{"max_tokens": null, "n": 2}', 2 * DEFAULT_OUTPUT),
        (b'{"max_tokens": -5, "n": 0}', 0),
        (b'{"max_tokens": "many", "model": "m"}', DEFAULT_OUTPUT),
        (b'{"max_tokens": {"a": [1]}, "n": "3"}', DEFAULT_OUTPUT),
        (b'{"max_tokens": 7', DEFAULT_OUTPUT),
        (b'{"max_tokens": 1e400}', DEFAULT_OUTPUT),
        (b'{"max_tokens": 12345678901234567890123}', MOST_ALLOWED),
        (b'{"max_tokens": 7.0, "n": true}', DEFAULT_OUTPUT),
        (b'["max_tokens", "n"]', DEFAULT_OUTPUT),
    ],
)
def test_the_output_is_what_the_body_allows_else_that_of_a_usual_answer(body: bytes, output: float) -> None:
    assert cost(body) == (max(1.0, len(body) / 4), output)
    assert cost(body, input_only=True)[1] == 0.0


@pytest.mark.parametrize(("sign", "allowed"), [(b"", MOST_ALLOWED), (b"-", 0)])
def test_a_number_of_more_digits_than_python_reads_is_a_number(sign: bytes, allowed: int) -> None:
    body = b'{"model": "m", "max_tokens": ' + sign + b"9" * 5000 + b"}"
    ask = read_if_any(dialect_named("openai"), body)
    assert (ask.model, ask.allowed) == ("m", allowed)


def test_what_a_body_says_of_its_output_does_not_hide_the_model_that_it_names() -> None:
    ask = read_if_any(
        dialect_named("openai"), b'{"max_tokens": "many", "n": [], "model": "m", "stream": true}'
    )
    assert (ask.model, ask.stream, ask.allowed, ask.answers) == ("m", True, None, 1)


def test_a_body_that_nobody_reads_goes_by_its_declared_length_and_nothing_of_it_is_certain() -> None:
    for length, tokens in ((4000, 1000.0), (None, float(UNKNOWN_INPUT)), (0, 1.0)):
        found = estimate(Costs(), "caller", "", size_unread(length), None, input_only=False)
        assert (found.input, found.output) == (tokens, DEFAULT_OUTPUT)
        assert (found.sure_input, found.sure_output) == (0.0, 0.0)


def test_the_text_that_was_read_and_the_output_that_is_allowed_are_certain() -> None:
    ask = read_if_any(dialect_named("openai"), b'{"max_tokens": 9, "n": 2}')
    found = estimate(Costs(), "caller", "", size_of(b"x" * 80), ask, input_only=False)
    assert (found.sure_input, found.sure_output) == (20.0, 18.0)


@pytest.mark.parametrize("size", [40_000, 1_000_000])
def test_an_image_costs_by_the_piece_and_not_by_its_bytes(size: int) -> None:
    noise = base64.b64encode(Random(1).randbytes(size)).decode()
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{noise}"}}
    text = {"type": "text", "text": "What is the difference between these? " * 50}
    ask = {"messages": [{"role": "user", "content": [text, picture, text, picture]}]}
    found = size_of(json.dumps(ask).encode())
    assert found.files == 2
    words = len(json.dumps(ask).encode()) - 2 * len(noise)
    assert abs(found.text_bytes - words) < 4 * 1024
    costed = estimate(Costs(), "caller", "", found, None, input_only=True)
    assert costed.input == found.text_bytes / 4 + 2 * FILE_TOKENS
    assert costed.sure_input == found.text_bytes / 4


@pytest.mark.parametrize(
    "text", ["Was ist der Unterschied? ", "这是什么?", "def f(x):\n    return x\n", '{"a": [1, 2, 3]}, ']
)
def test_text_of_any_kind_is_text(text: str) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": text * 5000}]}).encode()
    assert (size_of(body).text_bytes, size_of(body).files) == (len(body), 0)


def test_what_a_model_told_is_taken_for_its_calls_and_no_other() -> None:
    costs = Costs()
    for _ in range(ENOUGH):
        costs.told_input("m", 1000, 500.0)
        costs.told_output("caller", "m", 20.0, 0)
    body = b'{"model": "m", "max_tokens": 400, "n": 2}'
    given, taken = cost(body, costs)
    assert given == pytest.approx(len(body) / 2, rel=0.01)
    assert 2 * 20 <= taken <= 2 * 20 * 1.3
    assert cost(b'{"model": "m", "max_tokens": 5}', costs)[1] == 5.0, "no more than is allowed"
    assert cost(b'{"model": "other"}', costs) == (18 / 4, DEFAULT_OUTPUT)
