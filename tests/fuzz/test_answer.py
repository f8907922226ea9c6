"""10,000 seeded inputs for the reader of answers. `make fuzz` goes on from here, guided by coverage."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz.mutate import SEEDS, cuts_of, mutated
from tests.fuzz.oracle import check

PORTION = 500


@pytest.mark.parametrize("portion", range(20))
def test_whatever_the_bytes_and_however_they_are_cut(portion: int):
    for number in range(portion * PORTION, (portion + 1) * PORTION):
        chance = Random(number)  # so that one of them can be had again
        raw = mutated(chance)
        check(raw, cuts_of(raw, chance), bodiless=chance.random() < 0.2)


@pytest.mark.parametrize("seed", SEEDS, ids=range(len(SEEDS)))
def test_every_seed_at_every_single_cut(seed: bytes):
    for at in range(len(seed)):
        check(seed, [at], bodiless=False)


def test_the_seeds_are_read_in_every_way():
    """Else the changes made to them would all be of one kind."""
    found = [check(seed, (), bodiless=False) for seed in SEEDS]
    assert any(each.keep for each in found)
    assert any(each.complete and not each.keep for each in found)
    assert any(each.failed for each in found)
    assert any(not each.complete and not each.failed for each in found)
