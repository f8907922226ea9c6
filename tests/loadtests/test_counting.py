"""`make counting`: every row is there, with what it is measured by."""

from __future__ import annotations

import pytest

from loadtests import counting


def test_each_way_is_measured_beside_the_same_without(capsys: pytest.CaptureFixture[str]) -> None:
    assert counting.main(["--rounds", "1"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    names = [row[:26].strip() for row in rows]
    calls = ["a call of 1000 bytes", "counted", "a call of 60000 bytes", "counted"]
    assert names == ["an event", "counted", "asked for", *calls]
    assert all(float(row.split()[-2]) > 0.0 for row in rows)
    assert [row.split()[-1] for row in rows if row.strip().startswith("a")][::2] == ["1.00", "1.00"]


def test_what_is_measured_is_the_counting() -> None:
    door = counting.Door(counting.Unit.TOKENS)
    body, answer = counting.ASK % b"hi", counting.ANSWER % b"yes"
    for _ in range(3):
        door.pass_one(body, answer, counts=True)
    (row,) = door.telemetry._tokens.values()
    assert (row.exact, row.output) == (3 * 380.0, 3 * 80.0)
    assert door.gate.store.in_flight("upstream:api") == 0
