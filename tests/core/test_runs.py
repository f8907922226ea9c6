from __future__ import annotations

from proxy.core.runs import MOST, PAUSE_S, Runs


def test_a_run_is_under_way_from_its_first_call_that_was_admitted() -> None:
    runs = Runs()
    assert not runs.under_way("r1", 0.0)
    runs.admitted("r1", 0.0)
    assert runs.under_way("r1", 0.0)
    assert not runs.under_way("r2", 0.0)


def test_a_run_that_pauses_too_long_begins_anew() -> None:
    runs = Runs()
    runs.admitted("r1", 0.0)
    runs.admitted("r1", 100.0)
    assert runs.under_way("r1", 100.0 + PAUSE_S)
    assert not runs.under_way("r1", 100.1 + PAUSE_S)


def test_memory_is_bounded_and_the_longest_silent_are_forgotten_first() -> None:
    runs = Runs()
    for run in ("first", "second", "third", "second"):
        runs.admitted(run, 0.0)
    for number in range(MOST - 1):
        runs.admitted(str(number), 0.0)
    assert len(runs) == MOST
    assert [runs.under_way(run, 0.0) for run in ("first", "second", "third")] == [False, True, False]
