"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from proxy.core.verdict import Reason
from proxy.settings import json_schema

ROOT = Path(__file__).parents[2]
PRODUCT = sorted((ROOT / "proxy").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("file", PRODUCT, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_outgrows_its_idea(file):
    assert len(file.read_text().splitlines()) <= 350


@pytest.mark.parametrize("file", TESTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_test_sleeps(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "asyncio.sleep"):
            assert ast.unparse(node.args[0]) == "0", f"{file}:{node.lineno} sleeps"


def test_the_core_reads_no_clock_and_no_chance():
    for file in (ROOT / "proxy" / "core").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            forbidden = {"asyncio", "time", "datetime", "random", "secrets", "logging", "os", "threading"}
            assert not forbidden & {name.partition(".")[0] for name in names}, file


def test_the_readme_is_short_and_names_the_two_commands():
    assert len(README.splitlines()) <= 150
    assert "make run" in README
    assert "make test" in README


def test_the_readme_names_every_reason_this_release_gives():
    for reason in Reason:
        assert f"`{reason}`" in README, reason


def test_every_key_of_the_configuration_stands_in_an_example_or_in_the_readme():
    text = README + "".join(file.read_text() for file in (ROOT / "config").glob("*.yaml"))
    missing = [key for key in sorted(_keys(json_schema())) if not re.search(rf"\b{key}\b", text)]
    assert missing == []


def _keys(schema: object) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(_keys, schema)) if schema else set()
    if not isinstance(schema, dict):
        return set()
    found = set(schema.get("properties", {}))
    for name, part in schema.items():
        found |= _keys(list(part.values()) if name in ("properties", "$defs") else part)
    return found
