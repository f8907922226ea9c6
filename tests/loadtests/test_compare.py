"""How proxies are compared: who is asked what, where it runs, and what the ratios say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadtests.cases import GOALS, Case
from loadtests.compare.__main__ import cases, options
from loadtests.compare.bench import LARGE_BODY, Cores, share_out
from loadtests.compare.calls import did, generator_command
from loadtests.compare.table import COLUMNS, COMPARED, render, tabulate, verdicts
from loadtests.origin import ANSWER
from loadtests.raw_client import BODY, PATH
from loadtests.running import pinned

PEERS = ("backpressure", "envoy")


def figures(name: str, case: Case, number: int = 0, void: str = "", **own: float) -> dict[str, Any]:
    fixed = {"name": name, "case": case.value, "round": number, "void": void, "closes": False, "note": ""}
    return {**fixed, **dict.fromkeys(COLUMNS[case], 1.0), **own}


def verdict_of(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    [found] = verdicts(rounds)
    return found


def test_ours_is_compared_with_each_peer_within_its_round_and_case() -> None:
    rounds = [
        figures("backpressure", Case.FORWARD, 0, per_s=1000.0, cpu_us=50.0),
        figures("envoy", Case.FORWARD, 0, per_s=500.0, cpu_us=100.0),
        figures("envoy", Case.REFUSE, 0, per_s=100.0, cpu_us=10.0),
        figures("backpressure", Case.REFUSE, 0, per_s=400.0, cpu_us=5.0),
        figures("envoy", Case.FORWARD, 1, per_s=100.0, cpu_us=100.0),  # a slow moment of the machine
        figures("backpressure", Case.FORWARD, 1, per_s=200.0, cpu_us=60.0),
        figures("envoy", Case.REFUSE, 1, per_s=100.0, cpu_us=10.0),
        figures("backpressure", Case.REFUSE, 1, per_s=200.0, cpu_us=5.0),
    ]
    rows = {(row["case"], row["name"]): row for row in tabulate(rounds)}
    assert list(rows) == [(case, name) for case in ("forward", "refuse") for name in PEERS]
    assert rows["forward", "envoy"]["ours_per_s_ratio"] == 2.0
    assert rows["forward", "envoy"]["ours_cpu_us_ratio"] == pytest.approx(0.55)
    assert rows["refuse", "envoy"]["ours_per_s_ratio"] == 3.0
    assert rows["forward", "backpressure"]["ours_per_s_ratio"] == 1.0
    assert rows["forward", "envoy"]["per_s"] == 300.0
    assert [(one["value"], one["verdict"]) for one in verdicts(rounds)] == [(2.0, "PASS"), (3.0, "PASS")]


def test_a_rate_that_is_not_the_proxys_own_is_judged_by_its_cpu() -> None:
    rounds = [
        figures("backpressure", Case.FORWARD, per_s=1000.0, cpu_us=90.0),
        figures("envoy", Case.FORWARD, per_s=500.0, cpu_us=45.0, void="core 50% busy"),
    ]
    found = verdict_of(rounds)
    assert (found["by"], found["value"], found["verdict"]) == ("cpu_us", 0.5, "MISS")
    assert "1 of 1 void: core 50% busy" in render(tabulate(rounds), [found])
    assert "MISS  by CPU" in render(tabulate(rounds), [found])


@pytest.mark.parametrize("case", [Case.SSE, Case.MEMORY])
def test_void_rounds_are_left_out_while_any_stands(case: Case) -> None:
    figure = GOALS[case].figure
    rounds = [
        figures("backpressure", case, 0, **{figure: 1.0}),
        figures("envoy", case, 0, **{figure: 2.0}),
        figures("backpressure", case, 1, "streams ended early", **{figure: 99.0}),
        figures("envoy", case, 1, **{figure: 2.0}),
    ]
    found = verdict_of(rounds)
    assert (found["value"], found["verdict"]) == (0.5, "PASS")
    ours = tabulate(rounds)[0]
    assert (ours[figure], ours["void"]) == (1.0, "1 of 2 void: streams ended early")
    assert verdict_of(rounds[2:])["verdict"] == "VOID"


def test_the_added_latency_is_judged_alone() -> None:
    found = verdict_of([figures("backpressure", Case.LATENCY, added_p99_ms=1.5)])
    assert (found["against"], found["value"], found["verdict"]) == ("direct", 1.5, "MISS")


def test_without_a_figure_of_its_own_a_row_still_stands_in_the_table() -> None:
    rounds = [
        figures("backpressure", Case.SSE, cpu_us=10.0),
        figures("direct", Case.SSE, cpu_us=float("nan")),  # there is no proxy
    ]
    table = render(tabulate(rounds), verdicts(rounds))
    assert "direct" in table
    assert verdicts(rounds) == []  # no Envoy, no goal


def test_a_contender_that_closes_its_connections_is_said_to() -> None:
    rounds = [
        {**figures("envoy+buffer", Case.REFUSE), "note": "reads the body first"},
        {**figures("envoy", Case.REFUSE), "closes": True},
        figures("backpressure", Case.REFUSE),
    ]
    _, ours, plain, buffered, *_ = render(tabulate(rounds), verdicts(rounds)).splitlines()
    assert "closes" not in ours
    assert plain.endswith("  closes")
    assert buffered.endswith("  reads the body first")
    assert [one["against"] for one in verdicts(rounds)] == ["envoy", "envoy+buffer"]


def test_every_case_has_a_goal_and_the_figure_it_is_judged_by() -> None:
    for case in Case:
        assert GOALS[case].figure in COLUMNS[case]
        assert set(COMPARED[case]) <= set(COLUMNS[case])
    goal = GOALS[Case.REFUSE]
    assert (goal.is_met(2.0), goal.is_met(1.99), goal.is_met(float("nan"))) == (True, False, False)
    assert (GOALS[Case.MEMORY].is_met(0.5), GOALS[Case.MEMORY].is_met(0.51)) == (True, False)


def test_the_proxies_have_the_first_core_for_themselves() -> None:
    assert share_out([0, 1], has_taskset=True) == Cores("0", "1")
    assert share_out([2, 5, 6], has_taskset=True) == Cores("2", "5,6")


@pytest.mark.parametrize(("cores", "has_taskset"), [([0], True), ([0, 1], False)])
def test_nothing_is_pinned_where_that_is_impossible(cores: list[int], has_taskset: bool) -> None:
    assert share_out(cores, has_taskset=has_taskset) == Cores(None, None)
    assert pinned(["true"], None) == ["true"]
    assert pinned(["true"], "1-3") == ["taskset", "--cpu-list", "1-3", "true"]


def test_without_wrk_our_own_generator_sends_the_same_request() -> None:
    body = Path("forward.body")
    with_wrk = generator_command("/usr/bin/wrk", 8080, PATH, body, 32, 3.0)
    assert with_wrk[-1] == str(body)
    assert f"http://127.0.0.1:8080{PATH}" in with_wrk
    assert with_wrk[with_wrk.index("--connections") + 1] == "32"
    assert generator_command(None, 8080, PATH, body, 32, 3.0)[-5:] == ["8080", "32", "3.0", PATH, str(body)]


def test_both_generators_are_told_what_a_contender_wants_of_its_calls() -> None:
    for wrk in ("/usr/bin/wrk", None):
        told = generator_command(wrk, 8080, PATH, Path("forward.body"), 32, 3.0, ["x-one: 1", "x-two: 2"])
        assert told[-3:] == ["forward.body", "x-one: 1", "x-two: 2"]


def test_an_answer_that_is_only_slow_is_not_called_broken() -> None:
    told = generator_command("/usr/bin/wrk", 8080, PATH, Path("forward.body"), 32, 3.0)
    assert told[told.index("--timeout") + 1] == "60s"


def test_request_and_answer_have_the_sizes_of_the_published_figures() -> None:
    assert (len(BODY), len(LARGE_BODY), len(ANSWER)) == (1024, 100_000, 300)
    assert json.loads(BODY)["messages"][0]["content"]
    assert json.loads(ANSWER)["choices"][0]["message"]["content"]
    assert "'" not in ANSWER


def test_only_the_refuse_case_may_refuse_and_must() -> None:
    assert did(Case.FORWARD, 10, 10)
    assert not did(Case.FORWARD, 9, 10)
    assert did(Case.REFUSE, 1, 10)  # nginx's slowest bucket lets one through every minute
    assert not did(Case.REFUSE, 2, 10)


def test_cases_are_chosen_by_name_and_measured_in_their_order() -> None:
    assert cases("sse, forward") == [Case.FORWARD, Case.SSE]
    assert options().parse_args([]).cases == list(Case)
    with pytest.raises(SystemExit):
        options().parse_args(["--cases", "forwards"])
