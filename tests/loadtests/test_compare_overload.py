"""The overload comparison's arithmetic: which calls come, what a cell came to, and the verdict."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from math import isnan, nan
from pathlib import Path
from typing import Any

import pytest

from loadtests.cases import Case, Site
from loadtests.compare_overload.__main__ import main, options
from loadtests.compare_overload.cell import spent_s
from loadtests.compare_overload.chart import COLOURS, PANELS
from loadtests.compare_overload.contenders import (
    ENVOY_UNTOLD,
    TOLD,
    UNTOLD,
    backpressure_yaml,
    envoy_adaptive,
    envoy_told,
    haproxy_cfg,
    nginx_conf,
)
from loadtests.compare_overload.figures import by_entitlement, figures, jain, why_void
from loadtests.compare_overload.schedule import HEAVY, KINDS, RUDE, TENANTS, Call, Plan, calls
from loadtests.compare_overload.table import COLUMNS, overall, render, tabulate, verdicts
from loadtests.running import free_port
from proxy.settings import parse, to_policy

PLAN = Plan(slots=10, service_s=0.1, factor=2.0, warm_up_s=1.0, seconds=4.0, seed=1)
BEGUN_AT = 1000.0


# ── which calls come ────────────────────────────────────────────────────────────────────────────────


def test_every_proxy_is_asked_the_same_and_every_round_something_else() -> None:
    assert list(calls(PLAN)) == list(calls(PLAN))
    assert list(calls(PLAN))[:9] != list(calls(replace(PLAN, seed=2)))[:9]
    assert list(calls(PLAN))[:9] != list(calls(replace(PLAN, factor=2.5)))[:9]


def test_the_calls_are_of_the_planned_rate_classes_tenants_and_manners() -> None:
    plan = replace(PLAN, seconds=99.0)
    found = list(calls(plan))
    assert len(found) == pytest.approx(20_000, abs=4 * 20_000**0.5)
    assert [call.at_s for call in found] == sorted(call.at_s for call in found)
    assert 99.9 < found[-1].at_s < plan.arriving_s
    by_class = Counter(call.kind.priority for call in found)
    assert {kind.priority: by_class[kind.priority] / len(found) for kind in KINDS} == pytest.approx(
        {"critical": 0.1, "normal": 0.4, "background": 0.5}, abs=0.02
    )
    by_tenant = Counter(call.tenant for call in found)
    assert by_tenant[0] / len(found) == pytest.approx(HEAVY, abs=0.02)
    assert {round(by_tenant[each] / len(found), 2) for each in range(1, TENANTS)} <= {0.07, 0.08}
    assert sum(call.is_rude for call in found) / len(found) == pytest.approx(RUDE, abs=0.02)


def test_patience_is_that_of_the_class_times_the_plans() -> None:
    patient = {call.kind.priority: call.kind.patience_s for call in calls(replace(PLAN, patience=0.5))}
    assert patient == {"critical": 2.5, "normal": 5.0, "background": 10.0}


def test_all_attempts_of_a_call_have_the_same_body_and_no_two_calls_have() -> None:
    one, other = Call(1, 0.0, KINDS[0], 3, False, 50), Call(2, 0.0, KINDS[0], 3, False, 50)
    first, second, others = (
        call.request(80, "/x", attempt) for call, attempt in ((one, 0), (one, 1), (other, 0))
    )
    (head, body), (again, same), (_, different) = (
        request.split(b"\r\n\r\n") for request in (first, second, others)
    )
    assert body == same != different
    assert json.loads(body)["messages"][0]["content"].startswith("Ticket 1: xx")
    assert f"content-length: {len(body)}".encode() in head
    assert b"x-call-id: 1.0" in head
    assert b"x-call-id: 1.1" in again
    assert b"x-stainless-retry-count: 1" in again
    assert b"x-caller-id: tenant-3" in head
    assert b"x-priority: critical" in head
    assert b"retry-count" not in replace(one, is_rude=True).request(80, "/x", 1)


# ── what a cell came to ─────────────────────────────────────────────────────────────────────────────


def served(plan: Plan = PLAN, took_s: float = 0.1) -> dict[str, Any]:
    """A cell in which every call was served at once."""
    records, entries = [], []
    for call in calls(plan):
        due_at = BEGUN_AT + call.at_s
        attempt = {"sent_at": due_at, "status": 200, "ended_at": due_at + took_s, "told_s": None}
        records.append(
            {
                "number": call.number,
                "due_at": due_at,
                "end": "good",
                "attempts": [attempt | {"kept_wait": False}],
            }
        )
        entries.append([f"{call.number}.0", due_at, due_at + took_s, True])
    callers = {"begun_at": BEGUN_AT, "busy": 0.1, "starved": 0, "records": records}
    ledger = {"at": BEGUN_AT + 99, "peak_in_flight": 9, "late_s": 0.001, "entries": entries}
    return {"callers": callers, "ledger": ledger, "proxy_busy": 0.2, "proxy_waited": 0.0}


def test_a_cell_in_which_all_were_served_has_the_best_of_every_figure() -> None:
    plan = replace(PLAN, factor=0.5)
    found = figures(plan, served(plan), unloaded_p99_s=0.1)
    assert found["goodput"] == pytest.approx(1.0, abs=0.1)
    assert found["critical"] == found["attempts"] == 1.0
    assert found["critical_p99"] == pytest.approx(1.0)
    assert found["p99_s"] == pytest.approx(0.1)
    assert isnan(found["kept"])
    assert (found["returns"], found["peak"], found["void"]) == (0, 9, "")
    assert found["served_late_ms"] == 1.0
    assert found["wasted"] == pytest.approx(0.0)
    assert found["jain"] > 0.95


def test_goodput_counts_distinct_calls_in_time_within_the_window() -> None:
    cell = served()
    in_window = [
        entry
        for entry in cell["ledger"]["entries"]
        if BEGUN_AT + 1.0 <= entry[2] < BEGUN_AT + PLAN.arriving_s
    ]
    assert figures(PLAN, cell, 0.1)["goodput"] == pytest.approx(len(in_window) / 4 / 100)
    kept, late, cut, twice, left = in_window[:5]
    late[2] += 60.0
    cut[3] = False
    cell["ledger"]["entries"].append([twice[0].replace(".0", ".1"), twice[1], twice[2] + 0.2, True])
    cell["ledger"]["entries"].append(["", BEGUN_AT + 2.0, BEGUN_AT + 2.1, True])  # the probe
    left[2], left[3] = 0.0, False  # still at work when the ledger was read
    found = figures(PLAN, cell, 0.1)
    assert found["goodput"] == pytest.approx((len(in_window) - 3) / 4 / 100)
    wasted_s = 60.1 + 0.1 + 0.3 + (BEGUN_AT + 99 - left[1])
    spent_s = (len(list(calls(PLAN))) - 3) * 0.1 + wasted_s
    assert found["wasted"] == pytest.approx(wasted_s / spent_s)
    assert kept[3]


def test_offered_below_capacity_is_all_that_can_be_done() -> None:
    plan = replace(PLAN, factor=0.2)
    due = [call for call in calls(plan) if call.at_s >= 1.0]
    found = figures(plan, served(plan), 0.1)
    assert found["offered_per_s"] == len(due) / 4
    assert found["goodput"] == pytest.approx(found["good_per_s"] / (len(due) / 4))


def test_only_critical_calls_that_were_due_in_the_window_are_counted_as_critical() -> None:
    cell = served()
    critical = [call.number for call in calls(PLAN) if call.kind.priority == "critical"]
    within = {call.number for call in calls(PLAN) if call.at_s >= 1.0} & set(critical)
    records = {record["number"]: record for record in cell["callers"]["records"]}
    for number in set(critical) - within:
        records[number]["end"] = "gave_up"
    assert figures(PLAN, cell, 0.1)["critical"] == 1.0
    records[min(within)]["end"] = "refused"
    assert figures(PLAN, cell, 0.1)["critical"] == pytest.approx(1 - 1 / len(within))
    records[max(within)]["attempts"][-1]["ended_at"] += 0.9
    assert figures(PLAN, cell, 0.1)["critical_p99"] == pytest.approx(10.0)


def test_a_return_at_the_time_told_is_kept_when_it_reached_the_upstream() -> None:
    cell = served()
    number = next(call.number for call in calls(PLAN) if call.at_s >= 1.0)
    records = {record["number"]: record for record in cell["callers"]["records"]}
    for each, came in ((number, True), (number + 1, False), (number + 2, True)):
        [last] = records[each]["attempts"]
        records[each]["attempts"] = [last | {"status": 429, "kept_wait": each != number + 2}, last]
        entry = next(entry for entry in cell["ledger"]["entries"] if entry[0] == f"{each}.0")
        entry[0] = f"{each}.1" if came else f"{each}.5"
    found = figures(PLAN, cell, 0.1)
    assert (found["returns"], found["kept"]) == (2, 0.5)
    due = sum(call.at_s >= 1.0 for call in calls(PLAN))
    assert found["attempts"] == pytest.approx((due + 3) / due)


def test_a_process_is_seen_to_use_a_core_and_to_wait_for_one() -> None:
    counts = Path("/proc/self/schedstat")
    before_s = int(counts.read_text().split()[1]) / 1e9 if counts.exists() else 0.0
    used_s, waited_s = spent_s(os.getpid())
    assert used_s > 0
    assert before_s <= waited_s < before_s + 3600
    assert spent_s(0) == (0.0, 0.0)


def tenants(*counts: int) -> list[Call]:
    return [
        Call(0, 0.0, KINDS[0], tenant, False, 50)
        for tenant, number in enumerate(counts)
        for _ in range(number)
    ]


@pytest.mark.parametrize(
    ("due", "good", "capacity", "expected"),
    [
        ((60, 20, 20), (60, 20, 20), 100.0, [1.0, 1.0, 1.0]),  # room for all
        ((90, 30, 30), (60, 20, 20), 100.0, [1.5, 20 / 30, 20 / 30]),  # level 40, then the small ones' wish
        ((900, 300, 300), (40, 40, 20), 120.0, [1.0, 1.0, 0.5]),  # all want more than an equal part
        ((900, 300, 30), (60, 45, 15), 120.0, [60 / 45, 1.0, 0.5]),  # what one leaves, the others share
    ],
)
def test_a_tenant_is_entitled_to_its_max_min_share(
    due: tuple[int, ...], good: tuple[int, ...], capacity: float, expected: list[float]
) -> None:
    assert by_entitlement(tenants(*due), tenants(*good), capacity) == pytest.approx(expected)


def test_jain_is_one_among_equals_and_the_inverse_of_their_number_when_one_has_all() -> None:
    assert jain([2.0, 2.0, 2.0]) == pytest.approx(1.0)
    assert jain([1.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert isnan(jain([0.0, 0.0]))
    assert isnan(jain([]))


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ((100, 100, 0, 0.009, 0.04), ""),
        ((100, 99, 0, 0.0, 0.0), "99 of 100 calls were made"),
        ((100, 100, 3, 0.0, 0.0), "the generator had no port or file left for 3 connections"),
        ((100, 100, 0, 0.0123, 0.0), "the generator was late: p99 12.3 ms"),
        ((100, 100, 0, 0.0, 0.062), "the proxy waited for its core, 6.2% of the time"),
    ],
)
def test_a_cell_says_why_it_proves_nothing(seen: tuple[int, int, int, float, float], said: str) -> None:
    assert why_void(*seen) == said


# ── the verdict ─────────────────────────────────────────────────────────────────────────────────────


def cell(name: str, goodput: float, number: int = 0, factor: float = 2.0, void: str = "") -> dict[str, Any]:
    own = dict.fromkeys(COLUMNS, 1.0) | {"goodput": goodput, "good_per_capacity": goodput}
    return {"name": name, "factor": factor, "round": number, "void": void} | own


def verdict(*cells: dict[str, Any]) -> tuple[str, str]:
    [found] = verdicts(cells, least_band=0.01)
    return found["against"], found["verdict"]


@pytest.mark.parametrize(
    ("ours", "expected"), [(0.99, "PASS"), (0.98, "PASS"), (0.975, "EVEN"), (0.97, "EVEN"), (0.96, "MISS")]
)
def test_ours_is_judged_by_the_peer_that_it_leads_by_the_least(ours: float, expected: str) -> None:
    found = verdict(cell(TOLD, ours), cell("haproxy", 0.98), cell("nginx", 0.97), cell("direct", 1.0))
    assert found == ("haproxy", expected)


def test_rounds_are_compared_within_themselves_and_their_range_is_the_noise() -> None:
    slow = [cell(TOLD, 0.80, 0), cell("haproxy", 0.79, 0), cell(TOLD, 0.99, 1), cell("haproxy", 0.98, 1)]
    assert verdict(*slow) == ("haproxy", "PASS")
    noisy = [
        *(cell(TOLD, goodput, number) for number, goodput in enumerate((0.90, 0.95, 1.00))),
        *(cell("haproxy", 0.97, number) for number in range(3)),
    ]
    assert verdict(*noisy) == ("haproxy", "EVEN")


def test_void_cells_judge_nothing_and_a_peer_without_any_other_makes_the_verdict_void() -> None:
    late = "the generator was late"
    found = [cell(TOLD, 0.99), cell("nginx", 0.9), cell("nginx", 1.0, 1, void=late), cell(TOLD, 0.9, 1)]
    assert verdict(*found) == ("nginx", "PASS")
    assert verdict(*found, cell("haproxy", 0.5, void=late)) == ("haproxy", "VOID")
    row = next(row for row in tabulate(found) if row["name"] == "nginx")
    assert (row["goodput"], row["void"]) == (0.9, f"1 of 2 void: {late}")


def test_both_of_ours_are_judged_from_capacity_on_and_the_worst_load_counts() -> None:
    cells = [
        cell(name, goodput, factor=factor)
        for factor, told, untold in ((0.5, 0.1, 0.1), (1.0, 0.99, 0.99), (10.0, 0.99, 0.8))
        for name, goodput in ((TOLD, told), (UNTOLD, untold), ("haproxy", 0.98))
    ]
    judged = verdicts(cells, 0.01)
    assert [(one["name"], one["factor"], one["verdict"]) for one in judged] == [
        (TOLD, 1.0, "PASS"),
        (TOLD, 10.0, "PASS"),
        (UNTOLD, 1.0, "PASS"),
        (UNTOLD, 10.0, "MISS"),
    ]
    assert (overall(judged, TOLD), overall(judged, UNTOLD), overall([], TOLD)) == (
        "PASS",
        "MISS",
        "not measured",
    )
    page = render(tabulate(cells), judged)
    assert page.splitlines()[-2:] == [f"{TOLD}: PASS", f"{UNTOLD}: MISS"]
    assert "10 x capacity" in page
    assert page.index("0.5 x capacity") < page.index("10 x capacity")


def test_a_figure_without_a_value_in_one_round_is_that_of_the_others() -> None:
    rounds = [cell("nginx", 0.9) | {"kept": nan}, cell("nginx", 0.9, 1) | {"kept": 0.5}]
    assert tabulate(rounds)[0]["kept"] == 0.5
    assert set(PANELS) <= set(tabulate(rounds)[0])


# ── the configurations ──────────────────────────────────────────────────────────────────────────────


def site() -> Site:
    return Site(Case.FORWARD, free_port(), free_port())


def test_ours_is_as_by_default_but_for_the_cap() -> None:
    policy = to_policy(parse(backpressure_yaml(site(), 3333, "10"), "overload.yaml", {}))
    upstream = policy.upstreams["origin"]
    assert upstream.cap.slots == 10
    default = "upstreams: {origin: {url: 'http://x', dialect: openai, concurrency: 10}}"
    default += "\nroutes: [{name: chat, path: /openai/, upstream: origin}]"
    assert policy == to_policy(parse(default, "default.yaml", {}))


def test_envoy_is_told_the_slots_and_keeps_what_is_not_critical_from_the_queue() -> None:
    resources = json.loads(envoy_told(PLAN, site()))["static_resources"]
    rooms = {one["name"]: one["circuit_breakers"]["thresholds"][0] for one in resources["clusters"]}
    assert {name: room["max_connections"] for name, room in rooms.items()} == {"origin": 10, "rest": 10}
    assert {name: room["max_pending_requests"] for name, room in rooms.items()} == {
        "origin": 400,
        "rest": 100,
    }
    outer, inner = resources["listeners"]
    [rest] = [one for one in resources["clusters"] if one["name"] == "rest"]
    [endpoint] = rest["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"] == inner["address"] != outer["address"]


def test_the_adaptive_envoy_is_told_no_number_of_slots() -> None:
    config = envoy_adaptive(site())
    [cluster] = json.loads(config)["static_resources"]["clusters"]
    assert cluster["circuit_breakers"]["thresholds"][0]["max_connections"] >= 1000
    assert "adaptive_concurrency" in config


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not on PATH")
def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    file = tmp_path / "nginx.conf"
    file.write_text(nginx_conf(PLAN, site()))
    accepts(["nginx", "-t", "-e", "stderr", "-p", str(tmp_path), "-c", str(file)])


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not on PATH")
def test_haproxy_takes_its_configuration(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(haproxy_cfg(PLAN, site()))
    accepts(["haproxy", "-c", "-f", str(file)])


def accepts(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_row_has_a_colour_and_loads_are_chosen_by_number() -> None:
    assert {TOLD, UNTOLD, ENVOY_UNTOLD, "nginx", "haproxy", "envoy", "direct"} == set(COLOURS)
    assert options().parse_args(["--factors", "10,1"]).factors == [1.0, 10.0]
    with pytest.raises(SystemExit):
        options().parse_args(["--factors", "ten"])


# ── all of it, short ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_short_sweep_measures_ours_and_the_upstream_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--only", f"direct,{TOLD}", "--no-install", "--results", str(tmp_path), "--rounds", "1"]
    asked += ["--factors", "2", "--slots", "4", "--service", "0.05", "--patience", "0.1"]
    asked += ["--warm-up", "0.3", "--seconds", "1"]
    assert main(asked) == 0
    [written] = tmp_path.glob("compare-overload-*.json")
    result = json.loads(written.read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert set(rows) == {"direct", TOLD}
    ours = rows[TOLD]
    assert 0.5 < ours["goodput"] <= 1.2  # on a machine too busy for more, the cell is void
    assert ours["peak"] == 4
    assert ours["goodput"] > rows["direct"]["goodput"]
    assert rows["direct"]["peak"] > 4
    cells = {one["name"]: one for one in result["cells"]}
    planned = len(list(calls(replace(Plan(**result["plan"]), factor=2.0))))
    assert all(sum(one["ends"].values()) == planned for one in cells.values())
    assert f"{TOLD}: " in capsys.readouterr().out
