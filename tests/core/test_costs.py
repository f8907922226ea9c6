"""What is learnt of calls: bytes to tokens by model, output by caller, pieces of a stream."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.costs import DEFAULT_OUTPUT, ENOUGH, MOST_CALLERS, MOST_MODELS, SHARE, Costs
from proxy.core.quantile import BOUNDS, GROWTH, Sizes, bound_of
from proxy.core.recent import Recent


def test_until_a_model_has_told_the_rules_of_thumb_hold() -> None:
    costs = Costs()
    assert costs.input_of("m", 400) == 100.0
    assert costs.output_of("a", "m", None) == DEFAULT_OUTPUT
    assert costs.output_of("a", "m", 7) == 7.0
    assert costs.streamed("m", 12) == 12.0
    assert costs.unread_output_of("a", "m", None) == DEFAULT_OUTPUT
    assert costs.unread_output_of("a", "m", 7) == 7.0


@pytest.mark.parametrize("per_token", [1.2, 3.0, 6.5, 12.0])
def test_the_ratio_of_a_model_is_learnt_from_few_calls_of_any_length(per_token: float) -> None:
    costs, chance = Costs(), Random(1)
    for _ in range(20):
        size = chance.choice([200, 5_000, 100_000])
        costs.told_input("m", size, size / per_token)
    assert costs.input_of("m", 9_000) == pytest.approx(9_000 / per_token, rel=0.1)
    assert costs.input_of("other", 400) == 100.0


@pytest.mark.parametrize(("size", "tokens"), [(10_000_000, 1_500.0), (400, 100_000.0), (50_000_000, 1.0)])
def test_one_call_that_is_nothing_like_the_others_spoils_no_ratio(size: int, tokens: float) -> None:
    costs = Costs()
    for _ in range(40):
        costs.told_input("m", 4_000, 1_000.0)
    costs.told_input("m", size, tokens)
    assert costs.input_of("m", 4_000) == pytest.approx(1_000, rel=0.25)
    for _ in range(60):
        costs.told_input("m", 4_000, 1_000.0)
    assert costs.input_of("m", 4_000) == pytest.approx(1_000, rel=0.05)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(0, 1e8)), max_size=40))
def test_a_ratio_is_a_number_above_nothing_whatever_is_told(told: list[tuple[int, float]]) -> None:
    costs = Costs()
    for size, tokens in told:
        costs.told_input("m", size, tokens)
        costs.told_output("a", "m", tokens, size)
    assert 0.0 < costs.input_of("m", 1000) < float("inf")
    assert 0.0 <= costs.streamed("m", 1000) < float("inf")


def test_the_output_is_the_callers_own_once_it_is_known_else_the_models() -> None:
    costs = Costs()
    for _ in range(ENOUGH):
        costs.told_output("short", "m", 10.0, 0)
    assert 10 <= costs.output_of("short", "m", None) <= 13
    assert costs.output_of("new", "m", None) == costs.output_of("short", "m", None)
    for _ in range(ENOUGH):
        costs.told_output("long", "m", 1000.0, 0)
    assert 1000 <= costs.output_of("long", "m", None) <= 1300
    assert costs.output_of("short", "m", None) <= 13
    assert costs.output_of("long", "m", 64) == 64.0
    assert costs.unread_output_of("long", "m", None) == pytest.approx(1000)
    assert costs.output_of("long", "n", None) == DEFAULT_OUTPUT


def test_the_pieces_of_a_stream_cost_what_those_of_whole_streams_did() -> None:
    costs = Costs()
    for _ in range(10):
        costs.told_output("a", "m", 300.0, 100)
    assert costs.streamed("m", 7) == pytest.approx(21)


def test_nothing_of_it_grows_without_bound() -> None:
    costs = Costs()
    for number in range(2 * MOST_CALLERS):
        costs.told_output(f"caller {number}", f"model {number}", 1.0, 1)
        costs.told_input(f"model {number}", 4, 1.0)
    assert len(costs._models) <= MOST_MODELS
    assert len(costs._callers) <= MOST_CALLERS


# ── its parts ───────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=60), st.sampled_from([0.5, 0.95]))
def test_a_quantile_is_at_most_a_third_above_the_true_one_and_never_below(
    sizes: list[float], share: float
) -> None:
    seen = Sizes()
    for size in sizes:
        seen.add(size, bound_of(size))
    # Weighed as they are: each one per cent more than the one before it.
    weighed = sorted((size, 1.01**at) for at, size in enumerate(sizes, 1))
    total, below = sum(weight for _, weight in weighed), 0.0
    size = 0.0
    for size, weight in weighed:  # noqa: B007 - the one at which it ends
        below += weight
        if below >= total * share * (1 - 1e-9):
            break
    found = seen.quantile(share)
    assert size <= found * (1 + 1e-9)
    assert found <= max(1.0, size) * GROWTH * (1 + 1e-9)


def test_what_was_long_ago_is_forgotten_and_the_histogram_stays_short() -> None:
    seen = Sizes()
    assert (seen.quantile(SHARE), seen.mean) == (0.0, 0.0)
    for size in (1e9, 3.0):
        for _ in range(5_000):
            seen.add(size, bound_of(size))
    assert seen.quantile(SHARE) == pytest.approx(3.0, rel=0.3)
    assert seen.mean == pytest.approx(3.0)
    assert len(seen._counts) <= BOUNDS
    assert seen.seen == 10_000


def test_a_table_keeps_what_is_used_and_forgets_the_rest() -> None:
    table: Recent[tuple[str, str], int] = Recent(8)
    table.put(("used", ""), 1)
    for number in range(100):
        table.put(("new", str(number)), number)
        assert table.get(("used", "")) == 1
        assert len(table) <= 8
    assert table.get(("new", "0")) is None
    assert table.get(("new", "99")) == 99
