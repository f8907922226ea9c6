"""One bucket of the store, with grants that turn out unused: any window holds for those that were used."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.claims import Claims
from proxy.core.policy import BucketPolicy, Per
from proxy.stores.memory import MemoryStore

GRAIN_S = 1e-5

RATES, BURSTS = st.sampled_from((0.5, 1.0, 1 / 3)), st.sampled_from((1.0, 1.5, 2.0, 4.0))


@given(rate=RATES, burst=BURSTS, seed=st.integers(0, 2**32), steps=st.integers(1, 80))
def test_used_grants_stay_within_burst_and_rate_over_any_window(
    rate: float, burst: float, seed: int, steps: int
) -> None:
    policy, chance = BucketPolicy("k", Per.ROUTE, rate, burst, ""), Random(seed)
    store, now = MemoryStore(), 1000.0
    held: list[tuple[float, Claims]] = []
    used: list[float] = []
    for _ in range(steps):
        now += chance.choice((0.0, 0.0, 0.25, 0.5, 0.9, 1.0, 2.0))
        what = chance.choice(("spend", "spend", "spend", "unused", "unused", "used"))
        if what == "spend":
            claims = Claims([], [("k", policy)], [])
            if store.reserve(claims, now) is None:
                held.append((now, claims))
        elif held:
            at, claims = held.pop(chance.randrange(len(held)))
            store.settle(claims, now, unused=what == "unused")
            if what == "used":
                used.append(at)
    times = sorted([*used, *[at for at, _ in held]])
    for first, began in enumerate(times):
        for last, ended in enumerate(times[first:], start=first):
            assert last - first + 1 <= burst + rate * (ended - began + GRAIN_S)


@given(count=st.integers(1, 12))
def test_what_is_given_back_in_the_order_it_was_taken_is_given_back_whole(count: int) -> None:
    policy = BucketPolicy("k", Per.ROUTE, 1.0, 12.0, "")
    store = MemoryStore()
    grants = [Claims([], [("k", policy)], []) for _ in range(count)]
    for claims in grants:
        assert store.reserve(claims, 5.0) is None
    for claims in grants:
        store.settle(claims, 5.0, unused=True)
    assert store.level("k", policy, 5.0) == 12.0
