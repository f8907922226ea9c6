"""`make compare-builds`: which builds, which cases, and which of the figures counts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

import proxy
from loadtests import builds
from loadtests.cases import Case

HERE = Path(proxy.__file__).parent.parent


def test_builds_are_folders_by_name() -> None:
    assert builds.builds(f"one={HERE},two={HERE}") == {"one": HERE, "two": HERE}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not NAME=FOLDER"),
        (str(HERE), "is not NAME=FOLDER"),
        (f"={HERE}", "is not NAME=FOLDER"),
        (f"one={HERE}/proxy", "that holds `proxy`"),
        (f"one={HERE},one={HERE}", "names two builds"),
    ],
)
def test_what_is_no_build_is_said_so(text: str, why: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=why):
        builds.builds(text)


def test_cases_are_measured_in_their_order_and_others_are_refused() -> None:
    assert builds.cases("sse,forward") == [Case.FORWARD, Case.SSE]
    with pytest.raises(argparse.ArgumentTypeError, match="memory: none of forward, "):
        builds.cases("memory")


def test_the_quarter_that_was_hindered_least_counts_and_stands_to_the_first_build() -> None:
    one, two = [40.0, 90.0, 44.0, 60.0], [33.0, 35.0, 99.0, 98.0]
    assert builds.best(one) == 44.0
    assert builds.best([7.0]) == 7.0
    lines = builds.render(Case.FORWARD, {"one": one, "two": two}).splitlines()
    assert lines[1].split() == ["one", "44.0", "40.0", "1.00"]
    assert lines[2].split() == ["two", "35.0", "33.0", "0.80"]


@pytest.mark.slow
def test_two_builds_are_measured_for_real(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--rounds", "1", "--seconds", "0.2", "--no-wrk", "--connections", "2", "--cases", "refuse"]
    where = ["--builds", f"one={HERE},two={HERE}", "--results", str(tmp_path)]
    assert builds.main([*short, *where]) == 0
    [written] = tmp_path.glob("builds-*.json")
    found = json.loads(written.read_text())["cpu_us"]["refuse"]
    assert set(found) == {"one", "two"}
    assert all(each[0] > 0 for each in found.values())
    assert "refuse" in capsys.readouterr().out
