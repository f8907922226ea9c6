"""What a latency is told without: the times in which the machine kept everybody waiting, and nothing else."""

from __future__ import annotations

import os
import threading

import pytest

from loadtests.compare.latency import summed_up, why_void
from loadtests.hindered import TICK_S, Watch, cores_of, hindered, untouched

WORK_S = 6e-6


class Clock:
    """A sleep takes the next of these times, and each reading after it that beside it; then all is usual."""

    def __init__(self, *script: tuple[float, float]) -> None:
        self._script = list(script)
        self._now = 0.0
        self._reading_s = WORK_S
        self.at_its_end = threading.Event()

    def perf_counter(self) -> float:
        self._now += self._reading_s
        return self._now

    def sleep(self, seconds: float) -> None:
        if not self._script:
            self.at_its_end.set()
        slept_s, self._reading_s = self._script.pop(0) if self._script else (seconds, WORK_S)
        self._now += slept_s


def test_a_watched_core_is_hindered_while_the_watch_is_kept_from_it_or_slowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = (TICK_S, WORK_S)
    monkeypatch.setattr(Watch, "fastest_s", {})
    clock = Clock(usual, (0.01, WORK_S), usual, usual, (TICK_S, WORK_S * 1.6), usual)
    monkeypatch.setattr("loadtests.hindered.time", clock)
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: None)
    with Watch([0]) as watch:
        assert clock.at_its_end.wait(10)
    late, slow = watch.hindered
    assert late == pytest.approx((TICK_S, TICK_S + 0.01), abs=1e-3)
    assert slow == pytest.approx((3 * TICK_S + 0.01, 4 * TICK_S + 0.01), abs=1e-3)


def test_a_watch_that_must_wait_its_turn_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with Watch([0]) as watch:
        pass
    assert watch.blind
    assert not watch.hindered


def test_a_core_is_slow_by_what_it_can_do_though_it_is_so_for_all_of_a_watch() -> None:
    work_s = [4.0] * 20 + [6.5] * 40 + [4.1, 4.3, 6.4] + [4.2] * 10
    ticks = [(at / 500, (at + 1) / 500, each * 1e-6) for at, each in enumerate(work_s)]
    assert hindered(ticks, 4e-6) == [
        (pytest.approx(20 / 500), pytest.approx(60 / 500)),
        (pytest.approx(62 / 500), pytest.approx(63 / 500)),
    ]
    assert hindered(ticks[20:60], 4e-6) == [(pytest.approx(20 / 500), pytest.approx(60 / 500))]
    assert hindered(ticks[:20], 4e-6) == hindered([], 4e-6) == []


def test_a_watch_knows_what_its_core_did_before(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock((TICK_S, WORK_S))
    monkeypatch.setattr(Watch, "fastest_s", {0: WORK_S / 2})
    monkeypatch.setattr("loadtests.hindered.time", clock)
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: None)
    with Watch([0]) as watch:
        assert clock.at_its_end.wait(10)
    assert len(watch.hindered) == 1
    assert Watch.fastest_s == {0: WORK_S / 2}


def test_the_calls_of_such_a_time_and_of_its_backlog_are_left_out_and_told() -> None:
    calls = [(at / 10, 0.0, 0.05) for at in range(100)]  # from 0.0 to 9.9
    calls[39:41] = [(3.9, 0.0, 1.0), (4.0, 0.5, 1.0)]
    spans = [(4.5, 5.0), (4.52, 4.9), (8.0, 8.01)]  # of two cores, in any order
    left = untouched(calls, spans)
    kept = [*range(39), *range(41, 45), *range(56, 80), *range(81, 100)]
    assert [round(at * 10) for at, _, _ in left] == kept
    told = summed_up({"calls": calls, "seconds": 10.0}, spans)
    assert told["p99_ms"] == pytest.approx(50.0)
    assert told["p99_of_all_ms"] == pytest.approx(1000.0)
    assert told["left_out"] == pytest.approx(0.14)
    assert summed_up({"calls": calls, "seconds": 10.0}, [])["left_out"] == 0.0
    lost = summed_up({"calls": calls, "seconds": 10.0}, [(0.0, 10.0)])
    assert (lost["left_out"], lost["p99_ms"]) == (1.0, lost["p99_of_all_ms"])
    assert why_void(10.0, lost) == "the machine hindered 100% of the calls"


def test_a_list_of_cores_is_read_as_taskset_reads_it() -> None:
    assert cores_of("0", "2-4,6") == [0, 2, 3, 4, 6]
    assert cores_of(None, None) == []
