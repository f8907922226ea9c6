from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.prices import GRAIN, Price, Prices

SMALL = Price(150_000, 600_000, 75_000, 150_000)
LARGE = Price(2_500_000, 10_000_000, 1_250_000, 3_125_000)
TABLE = Prices("USD", {"gpt-4o": LARGE, "gpt-4o-*": SMALL, "gpt-*": LARGE, "*": SMALL})


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("gpt-4o", LARGE),
        ("gpt-4o-mini", SMALL),
        ("gpt-5", LARGE),
        ("gpt-4o*", LARGE),
        ("claude", SMALL),
        ("", SMALL),
    ],
)
def test_the_name_itself_counts_before_its_longest_beginning(model: str, price: Price) -> None:
    assert TABLE.of(model) is price


def test_a_model_that_nothing_fits_has_no_price() -> None:
    assert Prices("USD", {"gpt-4o": LARGE}).of("gpt-4o-mini") is None


@pytest.mark.parametrize(
    ("tokens", "cost"),
    [
        ((1_000_000, 0), 2_500_000),
        ((0, 1_000_000), 10_000_000),
        ((100, 20), 450),
        ((1, 0), 3),  # 2.5 millionths, rounded up
        ((0, 0), 0),
        ((100, 20, 1000), 450 + 1250),
        ((100, 0, 0, 40), 60 * 2.5 + 40 * 3.125),
    ],
)
def test_a_cost_is_the_sum_of_its_tokens_each_at_its_price(tokens: tuple[int, ...], cost: float) -> None:
    assert LARGE.cost(*tokens) == cost


@given(*[st.integers(0, 10**7)] * 3)
def test_costs_are_whole_and_never_too_little(given_: int, taken: int, cached: int) -> None:
    cost = SMALL.cost(given_, taken, cached)
    exact = given_ * SMALL.input + taken * SMALL.output + cached * SMALL.cached
    assert 0 <= cost * GRAIN - exact < GRAIN
