"""The examples in config/: they load, an editor accepts them, and together they show every key."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from proxy.settings import json_schema, load, to_policy

CONFIG = Path(__file__).parents[2] / "config"
EXAMPLES = sorted(CONFIG.glob("*.yaml"))
GOLDEN = Path(__file__).parent / "golden"
ENV = {
    name: f"value-of-{name}"
    for name in (
        "ANTHROPIC_API_KEY",
        "AZURE_OPENAI_KEY",
        "BACKPRESSURE_ADMIN_TOKEN",
        "GITHUB_TOKEN",
        "NIGHTLY_KEY",
        "OPENAI_API_KEY",
    )
} | {"REDIS_URL": "rediss://:secret@redis.internal:6379/0"}


def faults(text: str) -> list[str]:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return [str(error.message) for error in Draft202012Validator(schema).iter_errors(yaml.safe_load(text))]


def keys_of(schema: dict) -> set[str]:
    sections = [schema, *schema["$defs"].values()]
    return {key for section in sections for key in section.get("properties", {})}


def test_there_are_four_examples() -> None:
    assert [file.stem for file in EXAMPLES] == ["agent-team", "demo", "openai-anthropic", "replicas"]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_loads_and_makes_a_policy(file: Path) -> None:
    policy = to_policy(load(file, ENV))
    assert policy.routes


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_accepted_by_the_schema_it_names(file: Path) -> None:
    text = file.read_text()
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named is not None
    assert (CONFIG / named[1]).is_file()
    assert faults(text) == []


def test_the_schema_in_the_repository_is_the_one_the_code_states() -> None:
    written = json.loads((CONFIG / "backpressure.schema.json").read_text())
    assert written == json_schema(), "write it anew: backpressure schema > config/backpressure.schema.json"


@pytest.mark.parametrize("key", sorted(keys_of(json_schema())))
def test_every_key_is_shown_in_an_example(key: str) -> None:
    shown = "\n".join(file.read_text() for file in EXAMPLES)
    assert re.search(rf"\b{key}:", shown)


@pytest.mark.parametrize("name", ["smallest", "every_section", "anchors_and_merge"])
def test_what_loads_is_accepted_by_the_schema(name: str) -> None:
    assert faults((GOLDEN / f"{name}.txt").read_text().partition("----\n")[0]) == []


@pytest.mark.parametrize("name", ["misspelt_keys", "wrong_types", "nothing_to_serve", "missing_keys"])
def test_what_the_schema_can_see_it_refuses_too(name: str) -> None:
    assert faults((GOLDEN / f"{name}.txt").read_text().partition("----\n")[0])


def test_every_key_has_a_description() -> None:
    schema = json_schema()
    bare = [
        key
        for section in (schema, *schema["$defs"].values())
        for key, field in section.get("properties", {}).items()
        if not field.get("description")
    ]
    assert bare == []
