"""What every store promises of buckets that count tokens: reserved as estimated, trued up at settle."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.cap import Cap
from proxy.core.claims import Claims, Store
from proxy.core.policy import BucketPolicy, Per
from proxy.core.used import Used
from proxy.core.verdict import Reason
from proxy.stores.memory import SWEEP_FROM, MemoryStore
from tests.kit.story import bucket, tokens
from tests.stores.conftest import later

TEN_A_SECOND = tokens(10.0, burst=100.0, per=Per.ROUTE, key="t")
CAP = Cap("upstream:api", 1)

GRAIN_S = 1e-5


def claims(cost: float, *others: BucketPolicy, caps: tuple[Cap, ...] = ()) -> Claims:
    buckets = (TEN_A_SECOND, *others)
    return Claims([(cap.key, cap) for cap in caps], [(each.key, each) for each in buckets], [], cost)


def reserved(store: Store, cost: float, now: float = 0.0, *others: BucketPolicy) -> Claims:
    wanted = claims(cost, *others)
    assert store.reserve(wanted, now) is None
    return wanted


def level(store: Store, now: float = 0.0) -> float:
    return store.level("t", TEN_A_SECOND, now)


def wait_s(store: Store, cost: float, now: float = 0.0) -> float:
    shortfall = store.peek(claims(cost), now)
    return 0.0 if shortfall is None else shortfall.wait_s


def test_a_call_takes_as_many_as_it_costs_and_one_request(store: Store) -> None:
    requests = bucket(1.0, burst=5.0, key="r")
    reserved(store, 30.0, 0.0, requests)
    assert level(store) == 70.0
    assert store.level("r", requests, 0.0) == 4.0


def test_it_waits_until_there_are_as_many_as_it_costs(store: Store) -> None:
    reserved(store, 90.0)
    shortfall = store.peek(claims(30.0), 0.0)
    assert shortfall is not None
    assert (shortfall.reason, shortfall.step_s) == (Reason.BUCKET_EMPTY, 3.0)
    assert shortfall.wait_s == pytest.approx(later(store, 2.0))
    assert wait_s(store, 10.0) == 0.0
    reserved(store, 30.0, now=later(store, 2.0))


def test_what_can_never_pass_is_too_dear_whatever_else_lacks(store: Store) -> None:
    store.reserve(claims(10.0, caps=(CAP,)), 0.0)
    for wanted in (claims(101.0, caps=(CAP,)), claims(101.0, bucket(0.1, key="r"))):
        shortfall = store.reserve(wanted, 0.0)
        assert shortfall is not None
        assert (shortfall.key, shortfall.reason) == ("t", Reason.TOO_DEAR)
    assert level(store) == 90.0
    reserved(store, 90.0)


@pytest.mark.parametrize(("used", "left"), [(30.0, 70.0), (10.0, 90.0), (0.0, 100.0), (None, 70.0)])
def test_what_was_not_used_comes_back_and_without_a_word_the_estimate_stands(
    store: Store, used: float | None, left: float
) -> None:
    requests = bucket(1.0, burst=5.0, key="r")
    store.settle(
        reserved(store, 30.0, 0.0, requests), 0.0, unused=False, used=None if used is None else Used(used)
    )
    assert level(store) == pytest.approx(left)
    assert store.level("r", requests, 0.0) == 4.0, "a request stays a request"


def test_what_was_used_beyond_the_estimate_is_a_debt_that_the_next_wait_for(store: Store) -> None:
    store.settle(reserved(store, 30.0), 0.0, unused=False, used=Used(180.0))
    assert level(store) == 0.0
    told_s = wait_s(store, 10.0)
    assert told_s == pytest.approx(later(store, 9.0))
    reserved(store, 10.0, now=told_s)


def test_a_grant_that_was_not_used_gives_all_back_whatever_else_is_said(store: Store) -> None:
    store.settle(reserved(store, 30.0), 0.0, unused=True, used=Used(180.0))
    assert level(store) == 100.0


def test_only_what_has_not_refilled_yet_comes_back(store: Store) -> None:
    # 30 refill within 3 s. At 2 s the last 10 of them have not, and those are the ones that were not used.
    early = reserved(store, 30.0)
    reserved(store, 40.0, now=2.0)
    before = level(store, 2.0)
    assert before == pytest.approx(50.0, abs=1.0)
    store.settle(early, 2.0, unused=False, used=Used(5.0))
    assert level(store, 2.0) == pytest.approx(before + 10.0)


def test_a_debt_finds_a_bucket_that_was_full_and_forgotten() -> None:
    store = MemoryStore()
    early = reserved(store, 30.0)
    fast = bucket(1000.0, key="f")
    for number in range(3 * SWEEP_FROM):
        other = Claims([], [(f"f|{number}", fast)], [])
        assert store.reserve(other, 100.0 + number) is None
    assert store.bucket_keys("t") == []
    now = 100.0 + 3 * SWEEP_FROM
    store.settle(early, now, unused=False, used=Used(50.0))
    assert level(store, now) == pytest.approx(80.0)


def test_a_bucket_in_debt_is_not_forgotten() -> None:
    store = MemoryStore()
    store.settle(reserved(store, 30.0), 0.0, unused=False, used=Used(1e6))
    fast = bucket(1000.0, key="f")
    for number in range(3 * SWEEP_FROM):
        assert store.reserve(Claims([], [(f"f|{number}", fast)], []), float(number)) is None
    assert store.bucket_keys("t") == ["t"]


COSTS = (1.0, 5.0, 20.0, 60.0, 100.0)
USED = (None, 0.0, 1.0, 10.0, 50.0, 200.0)


@given(seed=st.integers(0, 2**32), steps=st.integers(1, 80))
def test_any_window_that_ends_with_a_grant_holds_no_more_than_burst_and_rate(seed: int, steps: int) -> None:
    """Of each call what was reserved, until its answer told; then what was used of that, from its start on,
    and what was used beyond it, from its end on. A debt may exceed a window that no grant ends: it is known
    only afterwards, and the next grant waits for it.
    """
    store, chance, now = MemoryStore(), Random(seed), 1000.0
    rows: list[list[float]] = []  # when, and how many
    held: list[tuple[list[float], Claims]] = []
    for _ in range(steps):
        now += chance.choice((0.0, 0.0, 0.5, 1.0, 3.0, 8.0))
        if held and chance.random() < 0.5:
            row, wanted = held.pop(chance.randrange(len(held)))
            unused, used = chance.random() < 0.2, chance.choice(USED)
            store.settle(wanted, now, unused=unused, used=None if used is None else Used(used))
            used = 0.0 if unused else row[1] if used is None else used
            if used > row[1]:
                rows.append([now, used - row[1]])
            row[1] = min(row[1], used)
            continue
        wanted = claims(chance.choice(COSTS))
        if store.reserve(wanted, now) is None:
            rows.append([now, wanted.tokens])
            held.append((rows[-1], wanted))
            spent = 0.0
            for at, cost in reversed(rows):
                spent += cost
                assert spent <= 100.0 + 10.0 * (now - at + GRAIN_S)


@given(costs=st.lists(st.floats(0.5, 20.0), min_size=1, max_size=5))
def test_what_proves_unused_in_the_order_it_was_taken_comes_back_whole(costs: list[float]) -> None:
    store = MemoryStore()
    for wanted in [reserved(store, cost, 5.0) for cost in costs]:
        store.settle(wanted, 5.0, unused=False, used=Used(0.0))
    assert level(store, 5.0) == pytest.approx(100.0)
