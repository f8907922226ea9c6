"""Bodies read in part: what is found in good ones, and what is said of bad ones."""

from __future__ import annotations

import json

import pytest

from proxy.dialects import Dialect, Malformed, dialect_named

model_apis = pytest.mark.parametrize("dialect", [dialect_named("openai"), dialect_named("anthropic")])


@model_apis
def test_model_and_stream_are_read_and_the_rest_is_stepped_over(dialect: Dialect) -> None:
    ask = dialect.read(b'{"messages": [{"content": "\xff"}], "stream": true, "model": "gpt-4o"}')
    assert (ask.model, ask.stream) == ("gpt-4o", True)


@model_apis
@pytest.mark.parametrize("body", [b"{}", b'{"model": null, "stream": null}'])
def test_absent_and_null_mean_the_same(dialect: Dialect, body: bytes) -> None:
    ask = dialect.read(body)
    assert (ask.model, ask.stream) == ("", False)


@model_apis
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The body is not valid JSON in UTF-8."),
        (b"secret", "The body is not valid JSON in UTF-8."),
        (b'\xef\xbb\xbf{"model": "secret"}', "The body is not valid JSON in UTF-8."),
        (b'{"model": "secret\xff"}', "The body is not valid JSON in UTF-8."),
        (b'{"model": "secret\\ud800"}', "The body is not valid JSON in UTF-8."),
        (b'["secret"]', "The body does not fit this API: Expected `object`, got `array`."),
        (
            b'{"model": ["secret"]}',
            "The body does not fit this API: Expected `str | null`, got `array` - at `$.model`.",
        ),
        (
            b'{"stream": "secret"}',
            "The body does not fit this API: Expected `bool | null`, got `str` - at `$.stream`.",
        ),
        (b'{"x": ' + b"[" * 100_000, "The body is nested too deeply."),
    ],
)
def test_a_malformed_body_is_named_in_words_without_repeating_it(
    dialect: Dialect, body: bytes, message: str
) -> None:
    with pytest.raises(Malformed) as raised:
        dialect.read(body)
    assert str(raised.value) == message


@model_apis
def test_another_model_leaves_every_other_byte_of_the_values_as_it_was(dialect: Dialect) -> None:
    body = b'{ "temperature": 1.0, "model" : "gpt-4o", "messages": [ {"content": "a\\u00e9\xff"} ], "n": 1e2}'
    assert dialect.with_model(b"/v1/x", body, 'mini"x') == (
        b"/v1/x",
        b'{"temperature":1.0,"model":"mini\\"x","messages":[ {"content": "a\\u00e9\xff"} ],"n":1e2}',
    )


@model_apis
def test_a_model_given_twice_or_in_escapes_is_replaced_once_and_for_all(dialect: Dialect) -> None:
    _, body = dialect.with_model(b"/v1/x", b'{"model":"a","mod\\u0065l":"b","x":1}', "c")
    assert body is not None
    assert json.loads(body, object_pairs_hook=list) == [("model", "c"), ("x", 1)]


@model_apis
@pytest.mark.parametrize("body", [b"{}", b'{"model": null}', b'{"model": 4}', b"[]", b"no", b""])
def test_a_body_without_a_model_cannot_be_sent_for_another(dialect: Dialect, body: bytes) -> None:
    with pytest.raises(Malformed):
        dialect.with_model(b"/v1/x", body, "gpt-4o-mini")


@pytest.mark.parametrize("name", ["rest", "mcp"])
def test_dialects_without_models_have_none_to_replace(name: str) -> None:
    with pytest.raises(Malformed, match="no model to replace"):
        dialect_named(name).with_model(b"/x", b'{"model": "gpt-4o"}', "gpt-4o-mini")


def test_a_plain_body_is_not_looked_at() -> None:
    ask = dialect_named("rest").read(b"\x00not json")
    assert (ask.model, ask.tool, ask.ids, ask.exempt) == ("", "", (), False)
