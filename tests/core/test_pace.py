from __future__ import annotations

import pytest

from proxy.core.pace import MEMORY_S, SEEN_S, Pace


def granting(pace: Pace, rank: int, per_s: float, since: float, seconds: float) -> float:
    """So many calls a second of one class, evenly; returns when the last was granted."""
    at = since
    for number in range(int(seconds * per_s)):
        at = since + number / per_s
        pace.granted(rank, at)
    return at


def test_a_steady_stream_is_seen_at_its_rate() -> None:
    pace = Pace()
    at = granting(pace, 0, 50.0, 100.0, 10 * MEMORY_S)
    assert pace.above(1, at) == pytest.approx(50.0, rel=0.05)


def test_only_the_classes_before_count() -> None:
    pace = Pace()
    granting(pace, 0, 10.0, 0.0, 20.0)
    at = granting(pace, 1, 30.0, 0.0, 20.0)
    assert pace.above(0, at) == 0.0
    assert pace.above(1, at) == pytest.approx(10.0, rel=0.1)
    assert pace.above(2, at) == pytest.approx(40.0, rel=0.1)
    assert pace.above(9, at) == pace.above(2, at)


def test_a_stream_that_ends_is_forgotten_in_time() -> None:
    pace = Pace()
    at = granting(pace, 0, 50.0, 0.0, 20.0)
    now = pace.above(1, at)
    assert pace.above(1, at + MEMORY_S) == pytest.approx(now / 2.718, rel=0.01)
    assert pace.above(1, at + 20 * MEMORY_S) < 1e-6


def test_a_class_is_seen_for_a_while_after_its_last_call() -> None:
    pace = Pace()
    assert not pace.any_above(2, 0.0)
    pace.granted(1, 100.0)
    assert not pace.any_above(1, 100.0), "its own calls are nobody before it"
    assert pace.any_above(2, 100.0 + SEEN_S)
    assert not pace.any_above(2, 100.1 + SEEN_S)
