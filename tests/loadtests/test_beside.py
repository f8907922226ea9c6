"""`make compare-replicas`: what LiteLLM is told, and how a ledger is judged; LiteLLM itself is not needed."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtests.replicas import litellm
from loadtests.replicas.beside import (
    BURST,
    Cap,
    Rate,
    Side,
    back_in_flight,
    cap_sides,
    judge_cap,
    judge_rate,
    measure_cap,
    most_of_a_minute,
    promises,
    rate_sides,
    scenarios,
)
from loadtests.replicas.exactness import in_flight
from loadtests.replicas.site import Run
from loadtests.replicas.table import Row, Rows
from proxy.settings import parse
from tests.kit.redis import executable

ROOT = Path(__file__).parents[2]
PEER = Path("litellm")
LIMIT = 60


def side(*, is_ours: bool) -> Side:
    sides = rate_sides(PEER, "key", LIMIT)
    assert [one.is_ours for one in sides] == [True, False]
    return sides[0] if is_ours else sides[1]


def record(call: int, attempt: int, status: int, told_s: float | None = None) -> list[Any]:
    """As a caller writes it down."""
    return [0, call, attempt, 0.0, 0.0, 0.0, status, "", told_s]


def run(calls: list[list[Any]], first_attempts: float, *records: list[Any]) -> Run:
    firsts = [record(1000 + call, 0, 200) for call in range(round(first_attempts))]
    return Run(0.0, [*firsts, *records], 0.1, calls, [])


def found(rows: Rows, what: str) -> Row:
    [row] = [row for row in rows.rows if row.what.startswith(what)]
    return row


# ── what LiteLLM is told ────────────────────────────────────────────────────────────────────────────


def made(deployment_rpm: int | None = None) -> dict[str, Any]:
    maker = litellm.yaml(deployment_rpm=deployment_rpm)
    told: dict[str, Any] = yaml.safe_load(
        maker(4000, 4001, "http://127.0.0.1:2222", "redis://127.0.0.1:3333")
    )
    return told


def test_all_instances_share_one_redis_and_nothing_is_tried_twice() -> None:
    told = made()
    assert told["general_settings"]["coordination_redis"] == {"host": "127.0.0.1", "port": 3333}
    assert told["router_settings"] == {"num_retries": 0, "redis_host": "127.0.0.1", "redis_port": 3333}
    [model] = told["model_list"]
    assert model["litellm_params"]["api_base"] == "http://127.0.0.1:2222/v1"
    assert model["litellm_params"]["max_retries"] == 0
    assert "rpm" not in model["litellm_params"]


def test_a_deployments_limit_is_stated_and_enforced() -> None:
    told = made(deployment_rpm=300)
    assert told["model_list"][0]["litellm_params"]["rpm"] == 300
    assert told["router_settings"]["optional_pre_call_checks"] == ["enforce_model_rate_limits"]


def test_the_key_and_its_limits_come_from_a_module_beside_the_configuration() -> None:
    program = litellm.program(PEER, rpm=50, most=10, window_s=10)
    assert made()["general_settings"]["custom_auth"] == f"{litellm.HOOK}.shared"
    assert "rpm_limit=50, max_parallel_requests=10" in program.files[f"{litellm.HOOK}.py"]
    compile(program.files[f"{litellm.HOOK}.py"], "hook", "exec")
    command = " ".join(program.command(Path("c.yaml"), 4000))
    assert "LITELLM_RATE_LIMIT_WINDOW_SIZE=10 litellm --config c.yaml" in command
    assert "--port 4000 --num_workers 1" in command


def test_litellm_is_the_one_asked_for_or_none_and_then_it_is_told_how_to_have_one(tmp_path: Path) -> None:
    assert litellm.executable(tmp_path / "none") is None
    (tmp_path / "litellm").touch()
    assert litellm.executable(tmp_path / "litellm") == tmp_path / "litellm"
    assert "pip install 'litellm[proxy]'" in litellm.LEFT_OUT
    assert [one.name for one in rate_sides(None, "key", LIMIT) + cap_sides(None, 10)] == ["ours", "ours"]


def test_ours_never_grants_more_in_a_minute_than_the_limit() -> None:
    rules = side(is_ours=True).yaml(8000, 8001, "http://127.0.0.1:9", "redis://127.0.0.1:6379")
    [route] = parse(rules, "ours.yaml", {}).routes
    [bucket] = route.buckets
    assert bucket.burst == BURST
    assert f"rate: {(LIMIT - BURST) / 60:.12g} requests/second" in rules
    assert set(scenarios(None, "key", quick=True)) == set(scenarios(PEER, "windows", quick=False))


# ── how a ledger is judged ──────────────────────────────────────────────────────────────────────────


def test_a_limit_kept_in_each_minute_of_the_clock_is_exceeded_where_two_meet() -> None:
    arrived = [30.0 + number / 10 for number in range(60)] + [60.0 + number / 10 for number in range(60)]
    assert most_of_a_minute(arrived, unix_ahead_s=0.0) == LIMIT
    assert most_of_a_minute(arrived, unix_ahead_s=30.0) == 2 * LIMIT
    plan, rows = Rate(LIMIT, 120.0), Rows("late", [])
    judge_rate(
        rows, side(is_ours=True), plan, run([["0.1.0", at, at, 200] for at in arrived], plan.planned), 0.0
    )
    worst = found(rows, "calls in the worst 60 s")
    assert (worst.found, worst.verdict) == (2 * LIMIT, "MISS")
    assert "100.0% beyond" in worst.says
    assert found(rows, "in the worst minute").found == LIMIT
    assert found(rows, "of the limit in use").found == pytest.approx(1.0)


def test_a_peer_is_told_of_and_not_judged_and_what_it_asks_for_itself_is_no_call() -> None:
    plan, rows = Rate(LIMIT, 60.0), Rows("rate", [])
    calls = [["", 1.0, 1.0, 200], *(["0.1.0", 2.0, 2.0, 200] for _ in range(LIMIT + 1))]
    judge_rate(rows, side(is_ours=False), plan, run(calls, plan.planned), 0.0)
    assert {row.verdict for row in rows.rows} == {"-"}
    assert found(rows, "calls in the worst 60 s").found == LIMIT + 1


def test_a_run_with_another_load_proves_nothing() -> None:
    plan, rows = Rate(LIMIT, 60.0), Rows("rate", [])
    judge_rate(rows, side(is_ours=True), plan, run([], plan.planned / 2), 0.0)
    assert found(rows, "calls in the worst 60 s").verdict == "VOID"


def test_a_promise_is_kept_when_who_returns_at_the_time_told_is_let_in() -> None:
    told = [record(1, 0, 429, 5.0), record(1, 1, 200), record(2, 0, 429, 5.0), record(2, 1, 429, 5.0)]
    untold = [record(3, 0, 429), record(3, 1, 200), record(4, 0, 429, 60.0), record(5, 0, 200)]
    assert promises([*told, *untold]) == (1, 2)


def test_slots_that_are_never_free_again_are_a_cap_that_is_not_back() -> None:
    killed, ended = 20.0, 60.0
    both = [(0.0, killed)] * 10
    curve = in_flight([*both, *[(killed, ended)] * 5])
    assert back_in_flight(curve, killed, 9.0, ended) == inf
    curve = in_flight([*both, *[(killed, ended)] * 5, *[(killed + 3.0, ended)] * 5])
    assert back_in_flight(curve, killed, 9.0, ended) == pytest.approx(2.6, abs=0.06)


def test_a_cap_is_judged_by_what_was_in_flight_at_the_upstream() -> None:
    plan, rows = Cap(2, 0.5, 60.0, kill=True), Rows("cap-kill", [])
    calls = [["0.1.0", 0.0, 20.0, 200], ["1.1.0", 0.0, 60.0, 200], ["1.2.0", 10.0, 10.5, 200]]
    judge_cap(rows, side(is_ours=True), plan, run(calls, plan.per_s * plan.seconds), None)
    assert (found(rows, "most in flight").found, found(rows, "most in flight").verdict) == (3, "MISS")
    assert (found(rows, "back at 90%").found, found(rows, "back at 90%").verdict) == (inf, "MISS")
    assert "not within 40 s" in found(rows, "back at 90%").says
    judge_cap(theirs := Rows("cap-kill", []), side(is_ours=False), plan, run(calls, 1.0), 7)
    assert {row.verdict for row in theirs.rows} == {"-"}
    assert found(theirs, "slots taken in Redis").found == 7


# ── all of it but LiteLLM ───────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_two_replicas_keep_one_cap_for_calls_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("REDIS_SERVER", executable())
    rows = measure_cap(Cap(4, 0.05, 4.0), cap_sides(None, 4), tmp_path / "cap")
    assert {row.scenario for row in rows.rows} == {"cap ours"}
    assert 1 <= found(rows, "most in flight").found <= 4
    assert found(rows, "calls with another answer").found == 0
