"""What every store promises (`core/claims.py`). Nothing here knows which store it runs over."""

from __future__ import annotations

import pytest

from proxy.core.cap import Cap
from proxy.core.claims import Claims, Store
from proxy.core.policy import BucketPolicy, QuotaPolicy
from proxy.core.verdict import Reason
from proxy.stores.shared import SharedStore
from tests.kit.story import bucket, quota
from tests.stores.conftest import later

CAP = Cap("upstream:api", 2)
FAST, SLOW = bucket(1.0, burst=2.0, key="fast"), bucket(0.1, key="slow")
DAY = quota(2, 100)


def claims(
    caps: tuple[Cap, ...] = (),
    buckets: tuple[BucketPolicy, ...] = (),
    quotas: tuple[QuotaPolicy, ...] = (),
) -> Claims:
    return Claims(
        [(cap.key, cap) for cap in caps],
        [(f"{each.key}|caller:ann", each) for each in buckets],
        [(f"{each.key}|caller:ann", each) for each in quotas],
    )


def reserved(store: Store, wanted: Claims, now: float = 0.0) -> Claims:
    assert store.reserve(wanted, now) is None
    return wanted


def lacked(store: Store, wanted: Claims, now: float = 0.0) -> tuple[str, Reason, float]:
    """What a reserve lacked: key, reason and wait. A peek says the same."""
    seen, shortfall = store.peek(wanted, now), store.reserve(wanted, now)
    assert shortfall is not None
    assert seen is not None
    assert (seen.key, seen.reason, seen.wait_s) == (shortfall.key, shortfall.reason, shortfall.wait_s)
    wait_s, lag_s = shortfall.wait_s, later(store, 0.0)
    if shortfall.reason is not Reason.QUOTA_SPENT and wait_s > lag_s:
        wait_s = round(wait_s - lag_s, 9)
    return shortfall.key, shortfall.reason, wait_s


def test_asking_for_nothing_is_granted(store: Store) -> None:
    store.settle(reserved(store, claims()), 1.0, unused=True)


def test_a_cap_grants_as_many_permits_as_it_has_and_they_return(store: Store) -> None:
    first = reserved(store, claims((CAP,)))
    reserved(store, claims((CAP,)))
    assert store.in_flight("upstream:api") == 2
    assert lacked(store, claims((CAP,))) == ("upstream:api", Reason.CAP_REACHED, 0.0)
    store.settle(first, 1.0, unused=False)
    assert store.in_flight("upstream:api") == 1
    reserved(store, claims((CAP,)))


def test_a_bucket_grants_its_burst_and_then_its_rate(store: Store) -> None:
    for _ in range(2):
        reserved(store, claims(buckets=(FAST,)))
    assert lacked(store, claims(buckets=(FAST,))) == ("fast|caller:ann", Reason.BUCKET_EMPTY, 1.0)
    assert store.level("fast|caller:ann", FAST, later(store, 0.5)) == pytest.approx(0.5)
    reserved(store, claims(buckets=(FAST,)), now=1.0)


def test_a_quota_counts_from_its_first_call_until_its_window_ends(store: Store) -> None:
    reserved(store, claims(quotas=(DAY,)), now=10.0)
    reserved(store, claims(quotas=(DAY,)), now=50.0)
    assert lacked(store, claims(quotas=(DAY,)), now=60.0) == (
        f"{DAY.key}|caller:ann",
        Reason.QUOTA_SPENT,
        50.0,
    )
    reserved(store, claims(quotas=(DAY,)), now=110.0)


def test_peeking_spends_nothing(store: Store) -> None:
    wanted = claims((CAP,), (FAST,), (DAY,))
    for _ in range(10):
        assert store.peek(wanted, 0.0) is None
    assert store.in_flight("upstream:api") == 0
    assert store.level("fast|caller:ann", FAST, 0.0) == 2.0


def test_all_is_granted_or_nothing_is_spent(store: Store) -> None:
    reserved(store, claims(buckets=(SLOW,)))
    for _ in range(10):
        assert lacked(store, claims((CAP,), (FAST, SLOW), (DAY,)))[0] == "slow|caller:ann"
    assert store.in_flight("upstream:api") == 0
    assert store.level("fast|caller:ann", FAST, 0.0) == 2.0
    reserved(store, claims(quotas=(DAY,)))
    reserved(store, claims(quotas=(DAY,)))


def test_a_full_cap_is_named_before_an_empty_bucket_with_the_time_that_takes(store: Store) -> None:
    one = Cap("upstream:api", 1)
    reserved(store, claims((one,), (SLOW,)))
    assert lacked(store, claims((one,), (SLOW,))) == ("upstream:api", Reason.CAP_REACHED, 10.0)


def test_of_several_that_are_empty_the_last_to_refill_is_named(store: Store) -> None:
    one_fast = bucket(1.0, burst=1.0, key="fast")
    reserved(store, claims(buckets=(SLOW, one_fast)))
    assert lacked(store, claims(buckets=(SLOW, one_fast))) == ("slow|caller:ann", Reason.BUCKET_EMPTY, 10.0)


def test_what_costs_more_than_a_bucket_can_hold_is_lacking_for_ever(store: Store) -> None:
    assert lacked(store, claims(buckets=(bucket(1.0, burst=0.5),)))[2] == float("inf")


def test_what_was_used_stays_spent(store: Store) -> None:
    store.settle(reserved(store, claims(buckets=(SLOW,), quotas=(DAY,))), 1.0, unused=False)
    assert lacked(store, claims(buckets=(SLOW,)), now=later(store, 1.0))[2] == pytest.approx(9.0)


def test_what_was_not_used_is_given_back(store: Store) -> None:
    for _ in range(5):
        wanted = reserved(store, claims((CAP,), (SLOW,), (DAY,)), now=1.0)
        store.settle(wanted, 1.0, unused=True)
    assert store.in_flight("upstream:api") == 0
    assert store.level("slow|caller:ann", SLOW, 1.0) == 1.0


def test_a_bucket_that_refilled_before_the_refund_is_not_filled_twice(store: Store) -> None:
    early = reserved(store, claims(buckets=(SLOW,)), now=0.0)
    reserved(store, claims(buckets=(SLOW,)), now=30.0)
    store.settle(early, 30.0, unused=True)
    assert lacked(store, claims(buckets=(SLOW,)), now=30.0)[2] == 10.0


def test_a_refund_gives_back_what_has_not_refilled_yet_and_no_more(store: Store) -> None:
    early = reserved(store, claims(buckets=(FAST,)), now=0.0)
    reserved(store, claims(buckets=(FAST,)), now=0.9)
    store.settle(early, 0.9, unused=True)
    left = store.level("fast|caller:ann", FAST, later(store, 0.9))
    assert left == pytest.approx(1.0, abs=1e-6 + later(store, 0.0))


def test_a_refund_brings_the_turn_of_those_behind_it_forward(store: Store) -> None:
    # Two spends refill from 0 to 1 and from 1 to 2. The first is given back, so the second has refilled at 1.
    first, second = reserved(store, claims(buckets=(FAST,))), reserved(store, claims(buckets=(FAST,)))
    store.settle(first, 0.0, unused=True)
    reserved(store, claims(buckets=(FAST,)), now=1.5)
    store.settle(second, 1.5, unused=True)
    left = store.level("fast|caller:ann", FAST, 1.5)
    # Who shares does not know whose turn it was: too little comes back at worst, never too much.
    assert left <= 1.0 if isinstance(store, SharedStore) else left == pytest.approx(1.0)


def test_a_call_of_an_ended_window_is_not_given_back_to_the_next(store: Store) -> None:
    early = reserved(store, claims(quotas=(DAY,)), now=0.0)
    for _ in range(2):
        reserved(store, claims(quotas=(DAY,)), now=100.0)
    store.settle(early, 101.0, unused=True)
    assert lacked(store, claims(quotas=(DAY,)), now=101.0)[1] is Reason.QUOTA_SPENT


def test_a_refund_after_the_window_has_ended_leaves_no_credit(store: Store) -> None:
    early = reserved(store, claims(quotas=(DAY,)), now=0.0)
    store.settle(early, 100.0, unused=True)
    for _ in range(2):
        reserved(store, claims(quotas=(DAY,)), now=100.0)
    assert lacked(store, claims(quotas=(DAY,)), now=100.0)[1] is Reason.QUOTA_SPENT


def test_counts_survive_a_policy_with_other_amounts(store: Store) -> None:
    reserved(store, claims((CAP,), (SLOW,), (DAY,)), now=0.0)
    reserved(store, claims(quotas=(quota(3, 100),)), now=1.0)
    reserved(store, claims(quotas=(quota(3, 100),)), now=1.0)
    assert lacked(store, claims(quotas=(quota(3, 100),)), now=1.0)[2] == 99.0
    assert lacked(store, claims((Cap("upstream:api", 1),)), now=1.0)[1] is Reason.CAP_REACHED
    twice_as_fast = lacked(store, claims(buckets=(bucket(0.2, key="slow"),)), now=1.0)
    # The time that is missing stays, or the tokens that are missing: 9 of 10 s, or 0.9 of a token.
    assert 4.5 <= twice_as_fast[2] <= 10.0


def test_keys_in_use_are_listed_by_what_they_begin_with(store: Store) -> None:
    reserved(store, claims((CAP, Cap("tool:x/y", 1)), (FAST,)))
    assert store.cap_keys("tool:") == ["tool:x/y"]
    assert store.bucket_keys("fast|") == ["fast|caller:ann"]
    assert store.bucket_keys("slow|") == []


def test_whoever_comes_back_exactly_when_told_is_granted(store: Store) -> None:
    for start in (0.1, 1000.7, 3.2e7 + 1 / 3):
        for wanted in (claims(buckets=(bucket(1 / 3, key=f"b{start}"),)), claims(quotas=(quota(1, 41),))):
            store.reserve(wanted, start)
            shortfall = store.peek(wanted, start + 1 / 7)
            assert shortfall is not None
            assert store.reserve(wanted, start + 1 / 7 + shortfall.wait_s) is None
