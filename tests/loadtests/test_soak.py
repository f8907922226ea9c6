"""The soak: its plan and its verdicts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from loadtests.soak_callers import ENDINGS, Callers
from loadtests.soak_plan import CALLERS, FAULTS, GREEDY_PART, KINDS, Plan, request
from loadtests.soak_verdict import Proxys, Sample, Verdict, conserved, is_settled, judge, memory, summary
from proxy.settings import parse

BASE = Sample(
    at_s=0.0,
    rss_mib=60.0,
    pss_mib=50.0,
    open_files=18,
    threads=7,
    tasks=7,
    connections=0,
    permits=0,
    waiting=0,
)
PLAN = Plan(600.0)


def steady(grows_by: float) -> list[Sample]:
    """Ten minutes that end `grows_by` MiB higher in their second half, with a burst now and then."""
    rise = [grows_by * max(0.0, at_s / 600 - 0.5) * 2 for at_s in range(0, 602, 2)]
    return [
        replace(BASE, at_s=float(2 * index), rss_mib=60 + mib + 5 * (index % 7 == 0))
        for index, mib in enumerate(rise)
    ]


@pytest.mark.parametrize(
    ("grows_by", "ok"), [(-3.0, True), (0.0, True), (1.8, True), (2.2, False), (20.0, False)]
)
def test_memory_is_flat_when_it_grows_by_less_than_two_arenas_whatever_the_bursts(
    grows_by: float, ok: bool
) -> None:
    assert memory(steady(grows_by), 600.0).ok is ok


def test_memory_is_not_judged_by_a_short_soak() -> None:
    assert memory(steady(20.0), 60.0).ok is None


@pytest.mark.parametrize("left", ["open_files", "threads", "tasks", "connections", "permits", "waiting"])
def test_one_thing_that_is_left_is_a_failed_verdict(left: str) -> None:
    assert is_settled(BASE, BASE)
    end = replace(BASE, **{left: getattr(BASE, left) + 1})
    assert not is_settled(BASE, end)
    failed = summary(BASE, [BASE, end], judge(BASE, [BASE, end], CALLED, COUNTED, SEEN, 16, 10.0))["failed"]
    assert len(failed) == 1


ENDS: dict[str, int] = dict.fromkeys(ENDINGS, 0) | {
    "good": 70,
    "refused": 10,
    "failed": 5,
    "cut": 5,
    "left": 10,
}
CALLED: dict[str, Any] = {
    "offered": 100,
    "endings": {"plain": ENDS},
    "reasons": {"shed": 10, "upstream_timeout": 2},
}
COUNTED = Proxys(offered=98, admitted=84, refused=12, left=2, settled=84, crashes=0)
SEEN: dict[str, Any] = {"arrivals": 83, "completed": 74, "peak_in_flight": 16, "in_flight": 0}


def failed(verdicts: Any) -> list[Verdict]:
    return [verdict for verdict in verdicts if not verdict.ok]


def test_ledgers_that_agree_but_for_who_left_fail_no_verdict() -> None:
    assert failed(conserved(CALLED, COUNTED, SEEN, 16)) == []


@pytest.mark.parametrize(
    "ends",
    [
        {"good": 69, "broken": 1},
        {"good": 69, "open": 1},
        {"good": 69},
        {"good": 75, "failed": 0},
        {"refused": 13, "failed": 2},
        {"refused": 1, "failed": 14},
    ],
)
def test_what_the_callers_saw_must_add_up(ends: dict[str, int]) -> None:
    assert failed(conserved(CALLED | {"endings": {"plain": ENDS | ends}}, COUNTED, SEEN, 16))


@pytest.mark.parametrize(
    "counted",
    [
        {"offered": 101, "admitted": 87, "settled": 87},
        {"offered": 89, "admitted": 75, "settled": 75},
        {"refused": 11},
        {"admitted": 85},
        {"settled": 83},
        {"settled": 85},
        {"admitted": 82, "settled": 82, "offered": 96},
        {"crashes": 1},
    ],
)
def test_what_the_proxy_counted_must_add_up(counted: dict[str, int]) -> None:
    assert failed(conserved(CALLED, replace(COUNTED, **counted), SEEN, 16))


@pytest.mark.parametrize(
    "seen",
    [{"arrivals": 85}, {"completed": 69}, {"completed": 83}, {"peak_in_flight": 17}, {"in_flight": 1}],
)
def test_what_the_upstream_saw_must_add_up(seen: dict[str, int]) -> None:
    assert failed(conserved(CALLED, COUNTED, SEEN | seen, 16))


def test_the_load_is_80_percent_of_what_the_upstream_serves() -> None:
    busy_s = {True: 0.1 + 20 * 0.02, False: 0.1}
    mean_s = sum(kind.part * busy_s[kind.is_streamed] for kind in KINDS) / 100
    assert sum(kind.part for kind in KINDS) == 100
    assert PLAN.rate_per_s * mean_s == pytest.approx(0.8 * PLAN.slots)
    assert PLAN.model_cap + PLAN.tool_cap == PLAN.slots


def test_every_fault_comes_once_a_round_and_goes_before_the_next() -> None:
    faults = list(PLAN.faults())
    assert faults == list(Plan(600.0).faults()) != list(Plan(600.0, seed=2).faults())
    counts = Counter(json.dumps(fault.mode) for fault in faults)
    assert set(counts.values()) == {PLAN.rounds} == {8}
    assert len(counts) == len(FAULTS)
    times = [time for fault in faults for time in (fault.begins_s, fault.ends_s)]
    assert times == sorted(times)
    assert times[-1] < 600.0


def test_the_configuration_is_valid_and_has_everything_on() -> None:
    for plan in (PLAN, Plan(7.0, slots=4, latency_s=0.01)):
        settings = parse(plan.proxy_yaml(8000, 8001, "http://127.0.0.1:9000"), "soak.yaml", {})
        assert sum(upstream.concurrency.slots for upstream in settings.upstreams.values()) == plan.slots
        assert all(upstream.breaker and upstream.retry_budget for upstream in settings.upstreams.values())
        assert all(route.buckets and route.queue.size for route in settings.routes)


def test_one_caller_alone_asks_for_more_than_its_bucket() -> None:
    settings = parse(PLAN.proxy_yaml(8000, 8001, "http://127.0.0.1:9000"), "soak.yaml", {})
    allowed_per_s = settings.routes[0].buckets[0].rate.per_s
    assert (1 - GREEDY_PART) / (CALLERS - 1) * PLAN.rate_per_s < allowed_per_s < GREEDY_PART * PLAN.rate_per_s


def test_all_attempts_of_a_call_have_one_body_and_no_two_calls_have() -> None:
    for kind in KINDS:
        bodies = {request(kind, 1, "normal", 7, attempt, keep=True)[1] for attempt in range(3)}
        assert len(bodies) == 1
        assert request(kind, 1, "normal", 8, 0, keep=True)[1] not in bodies


async def test_a_ledger_that_saw_nothing_has_every_ending() -> None:
    found = Callers(1, PLAN).ledger()
    assert found["offered"] == 0
    assert {tuple(ends) for ends in found["endings"].values()} == {ENDINGS}
