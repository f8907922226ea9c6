"""Each file of golden/: YAML, `----`, then what it means, or every problem of it.

`UPDATE_GOLDEN=1 pytest tests/settings/test_golden.py` writes the second half anew: read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.settings import SettingsError, parse

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.txt"))
ENV = {
    "TOKEN": "hunter2",
    "BACKPRESSURE_ADMIN_TOKEN": "hunter2",
    "NIGHTLY_KEY": "hunter2",
    "OPENAI_API_KEY": "hunter2",
    "KEY": "hunter2",
    "LINES": "hunter2\n",
    "EMPTY": "",
    "COUNT": "12",
}


def meaning(text: str) -> str:
    try:
        settings = parse(text, "config.yaml", ENV)
    except SettingsError as error:
        return str(error)
    return settings.model_dump_json(indent=1)


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_the_yaml_means_what_its_golden_file_says(file: Path) -> None:
    text, _, expected = file.read_text().partition("----\n")
    got = meaning(text) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(f"{text}----\n{got}")
    assert got == expected


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_no_answer_prints_a_secret(file: Path) -> None:
    assert "hunter2" not in meaning(file.read_text().partition("----\n")[0])


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_a_secret_is_in_no_repr_and_no_chained_error(file: Path) -> None:
    shown: list[object] = []
    try:
        shown.append(parse(file.read_text().partition("----\n")[0], "config.yaml", ENV))
    except SettingsError as error:
        shown += [error, error.problems, error.__context__, error.__cause__]
    assert "hunter2" not in repr(shown)
    assert shown[2:] in ([], [None, None])


def test_there_are_golden_files() -> None:
    assert len(GOLDEN) > 30
