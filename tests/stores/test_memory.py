"""The memory store forgets what is not in use. Its promises are in `test_contract.py`."""

from __future__ import annotations

from proxy.core.cap import Cap
from proxy.core.claims import Claims
from proxy.stores.memory import SWEEP_FROM, MemoryStore
from tests.kit.story import bucket

CAP = Cap("upstream:api", 10)
ONE_A_SECOND = bucket(1.0)
CALLERS = 100_000


def of(caller: int) -> Claims:
    return Claims([(CAP.key, CAP)], [(f"b|{caller}", ONE_A_SECOND)], [])


def test_the_buckets_of_callers_who_have_gone_are_forgotten() -> None:
    store = MemoryStore()
    for caller in range(CALLERS):
        claims, now = of(caller), caller / 100
        assert store.reserve(claims, now) is None
        store.settle(claims, now, unused=False)
    assert len(store.bucket_keys("")) <= SWEEP_FROM + 1
    assert store.cap_keys("") == []


def test_a_bucket_with_something_spent_is_never_forgotten() -> None:
    store, slow = MemoryStore(), bucket(0.001)
    spent = Claims([], [("slow", slow)], [])
    assert store.reserve(spent, 0.0) is None
    for caller in range(20 * SWEEP_FROM):
        claims, now = of(caller), caller / 100
        assert store.reserve(claims, now) is None
        store.settle(claims, now, unused=False)
    assert store.peek(spent, 500.0) is not None


def test_a_refund_to_a_bucket_that_was_forgotten_gives_nothing_to_its_successor() -> None:
    store = MemoryStore()
    early = of(0)
    assert store.reserve(early, 0.0) is None
    for caller in range(1, 3 * SWEEP_FROM):
        claims, now = of(caller), 10.0 + caller / 100
        assert store.reserve(claims, now) is None
        store.settle(claims, now, unused=False)
    assert "b|0" not in store.bucket_keys("")
    assert store.reserve(of(0), 50.0) is None
    store.settle(early, 50.0, unused=True)
    assert store.peek(of(0), 50.0) is not None
