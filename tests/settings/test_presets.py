"""Presets: what each stands for, that what is stated wins, and that no key is sent unless that is stated.

`UPDATE_GOLDEN=1` writes the table of docs/presets.md anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from proxy.settings import Settings, SettingsError, from_upstream, json_schema, parse, to_policy
from proxy.settings.document import Document
from proxy.settings.expansion import expand, shown
from proxy.settings.presets import PRESETS
from proxy.settings.upstreams import Timeouts

PAGE = Path(__file__).parents[2] / "docs" / "presets.md"
NAMED = {"openai", "azure", "anthropic", "gemini", "groq", "mistral", "openrouter", "vllm", "ollama"}
KEYS = {
    "OPENAI_API_KEY": "k-openai",
    "AZURE_OPENAI_API_KEY": "k-azure",
    "ANTHROPIC_API_KEY": "k-anthropic",
    "GEMINI_API_KEY": "k-gemini",
    "GROQ_API_KEY": "k-groq",
    "MISTRAL_API_KEY": "k-mistral",
    "OPENROUTER_API_KEY": "k-openrouter",
    "VLLM_API_KEY": "k-vllm",
}
ROUTE = "routes: [{name: chat, path: /, upstream: a}]\n"
every_preset = pytest.mark.parametrize("name", PRESETS)


def written(name: str, more: str = "") -> str:
    url = f", url: {PRESETS[name].url_example}" if PRESETS[name].url_example else ""
    return f"upstreams:\n  a: {{preset: {name}{url}{more}}}\n{ROUTE}"


def parsed(name: str, more: str = "", env: dict[str, str] | None = None) -> Settings:
    return parse(written(name, more), "config.yaml", KEYS if env is None else env)


def sent(settings: Settings) -> dict[str, str]:
    return {name: each.get_secret_value() for name, each in settings.upstreams["a"].credentials.items()}


def test_every_provider_that_was_asked_for_has_a_preset() -> None:
    assert set(PRESETS) >= NAMED


@every_preset
def test_a_preset_is_a_whole_upstream(name: str) -> None:
    upstream = parsed(name).upstreams["a"]
    assert to_policy(parsed(name)).upstreams["a"].breaker is not None
    assert upstream.dialect == PRESETS[name].dialect
    assert upstream.timeouts.first_byte_s > Timeouts().first_byte_s


@every_preset
def test_no_key_is_sent_or_needed_unless_the_file_says_so(name: str) -> None:
    assert sent(parsed(name)) == {}
    assert sent(parsed(name, env={})) == {}


@every_preset
def test_its_key_comes_from_the_variable_of_its_name_where_the_file_says_so(name: str) -> None:
    preset = PRESETS[name]
    if not preset.credentials:
        with pytest.raises(SettingsError, match="asks for no key"):
            parsed(name, ", credentials: env")
        return
    key = next(value for variable, value in KEYS.items() if f"{{{variable}}}" in str(preset.credentials))
    values = sent(parsed(name, ", credentials: env"))
    assert set(values) == set(preset.credentials)
    assert any(key in value for value in values.values())
    assert not any("${" in value for value in values.values())
    with pytest.raises(SettingsError, match=r"config.yaml:2: upstreams.a.credentials: .* is not set"):
        parsed(name, ", credentials: env", env={})


def test_the_headers_are_those_of_each_provider() -> None:
    assert sent(parsed("openai", ", credentials: env")) == {"authorization": "Bearer k-openai"}
    assert sent(parsed("azure", ", credentials: env")) == {"api-key": "k-azure"}
    assert sent(parsed("anthropic", ", credentials: env")) == {
        "x-api-key": "k-anthropic",
        "anthropic-version": "2023-06-01",
    }
    assert sent(parsed("groq", ", credentials: {x-mine: mine}")) == {"x-mine": "mine"}


@every_preset
def test_the_schema_lets_it_stand_alone(name: str) -> None:
    validator = Draft202012Validator(json_schema())
    for more in ("", ", credentials: env", ", timeouts: {idle: 20s}"):
        assert list(validator.iter_errors(yaml.safe_load(written(name, more)))) == []


@pytest.mark.parametrize("upstream", ["{preset: opnai}", "{dialect: openai}", "{url: 'http://x'}", "{}"])
def test_the_schema_sees_an_unknown_preset_and_what_is_missing_without_one(upstream: str) -> None:
    text = f"upstreams:\n  a: {upstream}\n{ROUTE}"
    assert list(Draft202012Validator(json_schema()).iter_errors(yaml.safe_load(text))) != []
    with pytest.raises(SettingsError):
        parse(text, "config.yaml", {})


@every_preset
def test_what_is_shown_is_yaml_that_means_the_same_without_the_preset(name: str) -> None:
    env = "" if not PRESETS[name].credentials else ", credentials: env"
    document = Document("config.yaml", KEYS)
    document.read(written(name, env))
    expand(document)
    text = "\n".join(["upstreams:", *shown(document), ROUTE])
    assert not any(key in text for key in KEYS.values())
    assert parse(text, "config.yaml", KEYS).upstreams == {
        "a": parsed(name, env).upstreams["a"].model_copy(update={"preset": None})
    }


def test_a_secret_that_stands_in_the_file_is_not_shown() -> None:
    document = Document("config.yaml", KEYS | {"URL": "http://secret.example"})
    document.read(written("openai", ", credentials: {authorization: hunter2}, url: '${URL}'"))
    expand(document)
    text = "\n".join(shown(document))
    assert "hunter2" not in text
    assert "secret" not in text
    assert 'url: "${URL}"' in text


def test_without_a_file_a_preset_is_enough() -> None:
    upstream = from_upstream(None, preset="ollama").upstreams["default"]
    assert (upstream.url, upstream.dialect, upstream.concurrency.slots) == (
        "http://127.0.0.1:11434",
        "openai",
        1,
    )
    assert upstream.credentials == {}
    there = from_upstream("http://10.0.0.7:11434", preset="ollama").upstreams["default"]
    assert there.url == "http://10.0.0.7:11434"
    with pytest.raises(SettingsError, match=r"command line: upstreams\.default\.url: is missing; the preset"):
        from_upstream(None, preset="azure")


def table() -> str:
    rows = [
        "| preset | url | dialect | `credentials: env` sends | connect, first byte, idle | in flight |",
        "|---|---|---|---|---|---|",
    ]
    for name, preset in PRESETS.items():
        upstream = parsed(name).upstreams["a"]
        times = upstream.timeouts
        cap = "learnt" if upstream.concurrency.adaptive else str(upstream.concurrency.slots)
        headers = ", ".join(f"`{header}: {form}`" for header, form in preset.credentials.items())
        spans = f"{times.connect_s:g} s, {times.first_byte_s:g} s, {times.idle_s:g} s"
        url = preset.url or f"yours, such as {preset.url_example}"
        rows.append(
            f"| `{name}` | {url} | {preset.dialect} | {headers or 'none is asked for'} | {spans} | {cap} |"
        )
    return "\n".join(rows)


def test_the_page_says_what_the_code_does() -> None:
    text = PAGE.read_text()
    found = re.search(r"\| preset \|(?:.|\n)*?(?=\n\n)", text)
    assert found is not None
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(text.replace(found[0], table()))
    assert found[0] == table()
    for example in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        assert parse(example, "presets.md", KEYS).routes
