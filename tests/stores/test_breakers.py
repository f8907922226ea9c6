"""Our machine is pybreaker's: it moves when told, follows its state, and its listeners are told."""

from __future__ import annotations

import pybreaker
import pytest

from proxy.core import breaker as core
from proxy.stores.breakers import BreakerMachine

MOVES = {"open": "open", "half_open": "half-open", "close": "closed"}


def test_a_new_machine_is_closed() -> None:
    assert BreakerMachine("api").phase == core.CLOSED


def test_the_phases_are_named_as_pybreaker_names_its_states() -> None:
    assert core.CLOSED == pybreaker.STATE_CLOSED
    assert core.OPEN == pybreaker.STATE_OPEN
    assert core.HALF_OPEN == pybreaker.STATE_HALF_OPEN


@pytest.mark.parametrize("first", MOVES)
@pytest.mark.parametrize("then", MOVES)
def test_the_phase_follows_the_circuit_through_every_move(first: str, then: str) -> None:
    machine = BreakerMachine("api")
    for move in (first, then):
        getattr(machine, move)()
        assert machine.phase == machine._circuit.current_state == MOVES[move]


def test_a_listener_is_told_of_each_move_after_it() -> None:
    told: list[tuple[str, str, str]] = []
    machine = BreakerMachine("api", lambda old, new: told.append((old, new, machine.phase)))
    machine.open()
    machine.half_open()
    machine.close()
    assert told == [
        ("closed", "open", "open"),
        ("open", "half-open", "half-open"),
        ("half-open", "closed", "closed"),
    ]


def test_each_machine_moves_alone() -> None:
    first, second = BreakerMachine("one"), BreakerMachine("two")
    first.open()
    assert (first.phase, second.phase) == ("open", "closed")
