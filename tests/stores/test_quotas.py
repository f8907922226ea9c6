from __future__ import annotations

from proxy.stores.quotas import SWEEP_FROM, Quotas
from tests.kit.story import quota

TWO_AN_HOUR = quota(2, 3600)


def spent(quotas: Quotas, *at: float, key: str = "ann") -> list[float]:
    return [quotas.spend(key, TWO_AN_HOUR, now).ends_at for now in at]


def test_asking_is_free() -> None:
    quotas = Quotas()
    assert [quotas.wait_s("ann", TWO_AN_HOUR, 0.0) for _ in range(10)] == [0.0] * 10


def test_a_window_begins_with_the_first_call_and_ends_for_all_of_it_at_once() -> None:
    quotas = Quotas()
    assert spent(quotas, 100.0, 2000.0) == [3700.0, 3700.0]
    assert quotas.wait_s("ann", TWO_AN_HOUR, 2000.0) == 1700.0
    assert quotas.wait_s("ann", TWO_AN_HOUR, 3700.0) == 0.0
    assert spent(quotas, 5000.0) == [8600.0]


def test_each_key_has_a_window_of_its_own() -> None:
    quotas = Quotas()
    spent(quotas, 0.0, 0.0)
    assert quotas.wait_s("bob", TWO_AN_HOUR, 1.0) == 0.0


def test_a_refund_counts_one_less_in_its_own_window() -> None:
    quotas = Quotas()
    window, _ = [quotas.spend("ann", TWO_AN_HOUR, now) for now in (0.0, 1.0)]
    quotas.refund("ann", TWO_AN_HOUR, window, 2.0)
    assert quotas.wait_s("ann", TWO_AN_HOUR, 2.0) == 0.0
    spent(quotas, 2.0)
    assert quotas.wait_s("ann", TWO_AN_HOUR, 2.0) == 3598.0


def test_a_refund_of_an_ended_window_changes_nothing() -> None:
    quotas = Quotas()
    ended = quotas.spend("ann", TWO_AN_HOUR, 0.0)
    over_at = ended.ends_at
    quotas.refund("ann", TWO_AN_HOUR, ended, over_at)
    spent(quotas, over_at, over_at)
    quotas.refund("ann", TWO_AN_HOUR, ended, over_at + 1.0)
    assert quotas.wait_s("ann", TWO_AN_HOUR, over_at + 1.0) > 0.0


def test_another_amount_keeps_the_count_and_another_window_begins_anew() -> None:
    quotas = Quotas()
    spent(quotas, 0.0, 0.0)
    assert quotas.wait_s("ann", quota(3, 3600), 1.0) == 0.0
    assert quotas.wait_s("ann", quota(1, 3600), 1.0) == 3599.0
    assert quotas.wait_s("ann", quota(2, 86400), 1.0) == 0.0


def test_a_key_with_a_slash_is_nobody_elses() -> None:
    quotas = Quotas()
    spent(quotas, 0.0, 0.0, key="ann/3600s")
    assert quotas.wait_s("ann", TWO_AN_HOUR, 0.0) == 0.0


def test_windows_that_have_ended_are_forgotten() -> None:
    quotas = Quotas()
    short = quota(5, 1)
    for caller in range(100_000):
        quotas.spend(f"caller-{caller}", short, caller / 100)
    assert len(quotas._counts._windows) <= SWEEP_FROM + 1
