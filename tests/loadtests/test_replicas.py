"""`make replicas`: its arithmetic, and one tiny run with real processes and a real Redis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from math import inf
from pathlib import Path

import pytest

from loadtests.replicas.__main__ import scenarios
from loadtests.replicas.callers import arrivals
from loadtests.replicas.exactness import (
    back_after,
    below,
    in_flight,
    mean_in_flight,
    moved_by,
    rate_between,
    worst_of_length,
    worst_share,
    worst_window,
)
from loadtests.replicas.faults import FAULTS
from loadtests.replicas.plans import skewed, yaml
from loadtests.replicas.table import Rows, render
from proxy.settings import parse
from tests.kit.redis import executable

ROOT = Path(__file__).parents[2]
STEADY = [number / 10 for number in range(100)]
"""Ten a second."""


# ── arithmetic ──────────────────────────────────────────────────────────────────────────────────────


def test_a_bucket_that_is_kept_to_the_last_token_has_no_excess_and_one_call_more_is_seen() -> None:
    kept = sorted([0.0] * 5 + [number / 10 for number in range(1, 50)])
    assert worst_window(kept, rate=10.0, burst=5.0) == pytest.approx(0.0)
    assert worst_window(sorted([*kept, 2.0]), rate=10.0, burst=5.0) == pytest.approx(1.0)
    assert worst_window(sorted([*kept, 2.0]), rate=10.0, burst=5.0, slack_s=0.1) == pytest.approx(0.0)


def test_a_burst_after_a_lull_is_no_excess_of_the_lull() -> None:
    assert worst_window([*STEADY, 20.0, 20.0, 20.0], rate=10.0, burst=3.0) <= 0.0
    assert worst_window([*STEADY, 20.0, 20.0, 20.0, 20.0], rate=10.0, burst=3.0) == pytest.approx(1.0)


def test_windows_of_one_length_and_the_excess_as_a_part() -> None:
    assert worst_of_length(STEADY, 10.0, 1.0, 1.05) == pytest.approx(11 - 1 - 10.5)
    assert worst_share([0.0, 0.0, 0.0], 10.0, 2.0) == pytest.approx(0.5)
    assert worst_share(STEADY, 10.0, 2.0) == 0.0
    assert worst_window([], 10.0, 2.0) == -2.0


def test_rates_and_when_one_is_back() -> None:
    assert rate_between(STEADY, 1.0, 3.0) == pytest.approx(10.0)
    assert moved_by([1.0, 2.0], [1.25, 2.5, 3.0]) == [0.25, 0.5]
    late = [at for at in STEADY if not 2.0 <= at < 5.0]
    assert back_after(late, since=3.0, rate=9.0, until=9.0, over_s=1.0) == pytest.approx(1.85, abs=0.06)
    assert back_after(late, since=3.0, rate=20.0, until=9.0, over_s=1.0) == inf


def test_a_call_that_ends_makes_room_for_one_that_begins_at_the_same_instant() -> None:
    curve = in_flight([(0.0, 1.0), (1.0, 2.0), (1.0, 3.0)])
    assert max(running for _, running in curve) == 2
    assert mean_in_flight(curve, 0.0, 4.0) == pytest.approx(1.0)
    assert below(curve, 2, 0.0, 4.0) == [(0.0, 1.0), (2.0, 4.0)]
    assert below(curve, 1, 0.0, 2.0) == []


# ── what is planned ─────────────────────────────────────────────────────────────────────────────────


def test_the_parts_of_a_skewed_load_sum_up_and_keep_their_ratio() -> None:
    parts = skewed(4, 8.0)
    assert sum(parts) == pytest.approx(1.0)
    assert parts[0] / parts[-1] == pytest.approx(8.0)
    assert skewed(1, 8.0) == [1.0]


def test_no_two_calls_have_one_number_and_all_are_within_their_time() -> None:
    found = [list(arrivals((0, 1, 50.0, 1.0, 3.0), number, 7)) for number in range(2)]
    numbers = [call for calls in found for *_, call in calls]
    assert len(set(numbers)) == len(numbers) > 100
    assert all(1.0 <= at_s < 3.0 for calls in found for at_s, *_ in calls)


def test_the_configurations_are_valid() -> None:
    for rules in (yaml(), yaml(rate_per_s=200.0, burst=50.0), yaml(rate_per_s=1.5, cap=10, memory=True)):
        settings = parse(rules(8000, 8001, "http://127.0.0.1:9", "redis://127.0.0.1:6379"), "r.yaml", {})
        assert len(settings.routes) == 1
    assert set(FAULTS) < set(scenarios(quick=True)) == set(scenarios(quick=False))


# ── what is told ────────────────────────────────────────────────────────────────────────────────────


def test_a_row_is_judged_by_its_goal_and_by_nothing_where_the_load_was_another() -> None:
    rows = Rows("one", [])
    rows.at_most("kept", 0.0, 0.0, " calls")
    rows.at_least("used", 0.5, 0.9, "", "why")
    rows.note("told", 1.0)
    Rows("one", rows.rows, "late").at_most("void", 1.0, 2.0)
    assert [row.verdict for row in rows.rows] == ["PASS", "MISS", "-", "VOID"]
    page = render([{"scenario": row.scenario, "what": row.what, "goal": row.goal, "says": row.says,
                    "verdict": row.verdict} for row in rows.rows])  # fmt: skip
    assert "MISS used" in page
    assert "0.5 (why)" in page


# ── all of it ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_two_replicas_under_half_as_much_again_keep_one_bucket_exactly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.replicas", "--results", str(tmp_path), "--quick"]
    environment = os.environ | {"REDIS_SERVER": executable()}
    done = subprocess.run([*command, "--only", "bucket-2"], cwd=ROOT, env=environment, capture_output=True,
                          text=True, timeout=100, check=False)  # fmt: skip
    assert done.returncode in {0, 1}, f"{done.stdout}\n{done.stderr}"
    [file] = tmp_path.glob("replicas-*.json")
    told = json.loads(file.read_text())
    assert told["quick"] is True
    assert told["build"] in {"compiled", "interpreted"}
    rows = {row["what"]: row for row in told["rows"]}
    assert all(set(row) == {"scenario", "what", "goal", "found", "says", "verdict"} for row in told["rows"])
    assert rows["granted beyond any window"]["found"] == 0.0
    assert rows["granted beyond any 1 s"]["found"] == 0.0
    assert rows["arrived beyond any window, less jitter"]["found"] == 0.0
    assert {"of the rate in use", "offered to the rate", "longest wait for an answer"} < set(rows)
    assert "PASS granted beyond any window" in done.stdout
