"""What every store promises of quotas that count tokens or money, and of what a run may have in all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.claims import Claims, Store
from proxy.core.demand import TRIP_S
from proxy.core.ledger import Ledger
from proxy.core.policy import Per, QuotaPolicy, Unit
from proxy.core.prices import GRAIN, Price
from proxy.core.quota_slice import KEPT_S
from proxy.core.used import Estimate, Used
from proxy.core.verdict import Reason
from proxy.stores.contact import Contact
from proxy.stores.holdings import Holdings
from proxy.stores.shared import SharedStore
from tests.stores.conftest import AtOnce

TOKENS = QuotaPolicy("t", Per.CALLER, 1000, 100, "1000 tokens/100s", unit=Unit.TOKENS)
MONEY = QuotaPolicy("m", Per.CALLER, 5000, 100, "5 USD/1000", unit=Unit.MONEY)
RUN = QuotaPolicy("run_budget/tokens", Per.RUN, 1000, 100, "1000 tokens", unit=Unit.TOKENS, lasts=True)
CALLS = QuotaPolicy("run_budget/calls", Per.RUN, 3, 100, "3 calls", lasts=True)


def claims(tokens: float, *quotas: QuotaPolicy, money: int = 0) -> Claims:
    return Claims([], [], [(f"{each.key}|caller:ann", each) for each in quotas], tokens, money=money)


def reserved(store: Store, tokens: float, *quotas: QuotaPolicy, now: float = 0.0, money: int = 0) -> Claims:
    wanted = claims(tokens, *quotas, money=money)
    assert store.reserve(wanted, now) is None
    return wanted


def most(store: Store, quota: QuotaPolicy, now: float) -> int:
    """The dearest call for which there is room."""
    most = 0
    for cost in range(0, quota.amount + 1, 50):
        wanted = claims(cost, quota)
        if store.reserve(wanted, now) is None:
            store.settle(wanted, now, unused=True)
            most = cost
    return most


def lacked(store: Store, tokens: float, quota: QuotaPolicy, now: float = 0.0) -> tuple[Reason, float]:
    shortfall = store.reserve(claims(tokens, quota), now)
    assert shortfall is not None
    return shortfall.reason, round(shortfall.wait_s, 6)


def test_a_call_takes_what_it_costs_and_waits_for_the_window_when_that_is_not_there(store: Store) -> None:
    reserved(store, 600, TOKENS)
    reserved(store, 400, TOKENS, now=40.0)
    assert lacked(store, 1, TOKENS, now=40.0) == (Reason.QUOTA_SPENT, 60.0)
    reserved(store, 1000, TOKENS, now=100.0)


def test_what_can_never_fit_is_too_dear(store: Store) -> None:
    assert lacked(store, 1001, TOKENS)[0] is Reason.TOO_DEAR
    assert lacked(store, 1001, RUN)[0] is Reason.TOO_DEAR
    nothing = QuotaPolicy("run_budget/retries", Per.RUN, 0, 100, "0 retries", lasts=True)
    assert lacked(store, 0, nothing)[0] is Reason.RUN_BUDGET_SPENT, "one call is not too dear"


@pytest.mark.parametrize("quota", [TOKENS, RUN])
def test_an_estimate_that_is_not_sure_keeps_no_call_out_for_good(store: Store, quota: QuotaPolicy) -> None:
    wanted = claims(1500, quota)
    wanted.estimate = Estimate(500.0, 1000.0, sure_input=500.0, sure_output=500.0)
    assert store.reserve(wanted, 0.0) is None, "all of it is reserved"
    assert lacked(store, 1, quota)[0] in (Reason.QUOTA_SPENT, Reason.RUN_BUDGET_SPENT)
    store.settle(wanted, 1.0, unused=False, used=Used(500.0, 100.0))
    assert most(store, quota, 1.0) == 400
    sure = claims(1500, quota)
    sure.estimate = Estimate(500.0, 1000.0, sure_input=500.0, sure_output=501.0)
    shortfall = store.peek(sure, 1.0)
    assert shortfall is not None
    assert shortfall.reason is Reason.TOO_DEAR


def test_nor_does_one_in_money(store: Store) -> None:
    wanted = claims(1500, MONEY, money=6000)
    wanted.price = Price(input=4 * GRAIN, output=4 * GRAIN, cached=GRAIN, written=GRAIN)
    wanted.estimate = Estimate(500.0, 1000.0, sure_input=500.0, sure_output=750.0)
    assert store.reserve(wanted, 0.0) is None
    store.settle(wanted, 1.0, unused=False, used=Used(500.0, 100.0))
    assert store.peek(claims(0, MONEY, money=2600), 1.0) is None
    assert store.peek(claims(0, MONEY, money=2601), 1.0) is not None
    wanted.estimate.sure_output = 751.0
    shortfall = store.peek(wanted, 1.0)
    assert shortfall is not None
    assert shortfall.reason is Reason.TOO_DEAR


@pytest.mark.parametrize("quota", [TOKENS, RUN])
@pytest.mark.parametrize(
    ("used", "left"), [(100, 900), (0, 1000), (800, 200), (1000, 0), (2000, 0), (None, 600)]
)
def test_it_is_trued_up_both_ways(store: Store, quota: QuotaPolicy, used: float | None, left: int) -> None:
    store.settle(reserved(store, 400, quota), 1.0, unused=False, used=None if used is None else Used(used))
    assert most(store, quota, 1.0) == left
    store.settle(reserved(store, 0, quota, now=2.0), 2.0, unused=True)
    assert most(store, quota, 2.0) == left


def test_what_never_went_has_spent_nothing(store: Store) -> None:
    store.settle(reserved(store, 400, TOKENS, MONEY, money=5000), 1.0, unused=True, used=Used(70.0))
    reserved(store, 1000, TOKENS, MONEY, now=1.0, money=5000)


def test_money_is_trued_up_by_what_the_answer_cost_and_not_by_its_tokens(store: Store) -> None:
    first = reserved(store, 400, TOKENS, MONEY, money=3000)
    first.price = Price(input=GRAIN, output=2 * GRAIN, cached=GRAIN // 2, written=3 * GRAIN)
    used = Used(700.0, 100.0, 100.0, 25.0)
    assert (used.tokens, first.price.cost_of(used)) == (900.0, 1000)
    store.settle(first, 1.0, unused=False, used=used)
    second = reserved(store, 100, MONEY, TOKENS, now=1.0, money=4000)
    store.settle(
        second, 1.0, unused=False, used=Used(100.0)
    )  # of a model without a price: the estimate stands
    assert store.reserve(claims(0, MONEY, money=1), 1.0) is not None


def test_after_the_window_has_turned_nothing_comes_back_and_nothing_is_lost(store: Store) -> None:
    less, more = reserved(store, 400, TOKENS), reserved(store, 400, TOKENS)
    reserved(store, 100, TOKENS, now=100.0)
    store.settle(less, 101.0, unused=False, used=Used(0.0))
    assert most(store, TOKENS, 101.0) == 900
    store.settle(more, 102.0, unused=False, used=Used(700.0))
    assert most(store, TOKENS, 102.0) == 600


def test_what_a_run_may_have_ends_so_long_after_its_last_call(store: Store) -> None:
    for now in (0.0, 90.0, 180.0):
        store.settle(reserved(store, 0, CALLS, now=now), now, unused=False)
    assert lacked(store, 0, CALLS, now=279.0) == (Reason.RUN_BUDGET_SPENT, float("inf"))
    reserved(store, 0, CALLS, now=281.0)


def test_a_shorter_memory_keeps_the_count(store: Store) -> None:
    reserved(store, 0, CALLS)
    shorter = QuotaPolicy(CALLS.key, Per.RUN, 2, 50, "2 calls", lasts=True)
    reserved(store, 0, shorter, now=10.0)
    assert lacked(store, 0, shorter, now=20.0)[0] is Reason.RUN_BUDGET_SPENT


# ── shared ──────────────────────────────────────────────────────────────────────────────────────────


class Replica(AtOnce):
    """One of several with one ledger, to which a trip takes no time."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        SharedStore.__init__(
            self, Holdings(name, Contact(safe_for_s=60.0, timeout_s=0.05, chance=lambda: 0.5))
        )
        self._ledger = ledger
        self._trip(-10.0)
        self._trip(-5.0)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 2), st.integers(1, 700)),
        st.tuples(st.just("end"), st.integers(0, 40), st.sampled_from([None, -1, 0, 30, 300, 900])),
        st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 40.0, 60.0, 700.0]), st.none()),
    ),
    max_size=50,
)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_several_replicas_grant_what_one_would_no_more_and_of_a_run_no_less(
    steps: list[tuple[Any, ...]],
) -> None:
    ledger = Ledger()
    replicas = [Replica(name, ledger) for name in "abc"]
    now, spent, ends_at, window = 0.0, 0, 0.0, 0
    held: list[tuple[Replica, Claims, int]] = []
    for what, one, two in steps:
        now += TRIP_S  # what was told so long ago may be true no longer
        if what == "wait":
            now += one
        elif what == "ask":
            spent, ends_at = (spent, ends_at) if now < ends_at else (0, 0.0)
            shortfall = replicas[one].reserve(wanted := claims(two, RUN), now)
            assert (shortfall is None) is (spent + two <= RUN.amount), (shortfall, spent, two)
            if shortfall is None:
                window += not ends_at
                spent, ends_at = spent + two, now + RUN.window_s
                held.append((replicas[one], wanted, window))
        elif held:
            replica, wanted, its = held.pop(one % len(held))
            replica.settle(wanted, now, unused=two == -1, used=None if two is None or two < 0 else Used(two))
            over = 0 if two is None else max(two, 0) - int(wanted.tokens)
            if now >= ends_at:
                spent, window = 0, window + (over > 0)
                ends_at = now + RUN.window_s if over > 0 else 0.0
            spent += over if over > 0 or (its == window and ends_at) else 0
        for replica in replicas:
            replica._trip(now)


def test_of_a_run_in_a_hurry_nothing_is_held_in_stock() -> None:
    many = QuotaPolicy("run_budget/calls", Per.RUN, 60, 100, "60 calls", lasts=True)
    ledger = Ledger()
    busy, other = Replica("a", ledger), Replica("b", ledger)
    now = 0.0
    for _ in range(50):
        busy.settle(reserved(busy, 0, many, now=now), now, unused=False)
        now += 0.02
    assert next(iter(busy._quotas.values())).demand.is_hot
    for _ in range(10):
        reserved(other, 0, many, now=now)
    assert lacked(other, 0, many, now=now)[0] is Reason.RUN_BUDGET_SPENT


def test_no_run_is_told_to_stop_by_what_was_left_once() -> None:
    ledger = Ledger()
    one, other = Replica("a", ledger), Replica("b", ledger)
    held = reserved(one, 600, RUN)
    reserved(other, 100, RUN)
    one.settle(held, 0.1, unused=False, used=Used(100.0))
    reserved(other, 800, RUN, now=TRIP_S)
    assert lacked(one, 1, RUN, now=TRIP_S)[0] is Reason.RUN_BUDGET_SPENT


def test_a_replica_that_found_a_quota_spent_hears_when_others_hand_some_of_it_back() -> None:
    ledger = Ledger()
    one, other = Replica("a", ledger), Replica("b", ledger)
    held = reserved(one, 1000, TOKENS)
    assert lacked(other, 500, TOKENS)[0] is Reason.QUOTA_SPENT
    one.settle(held, 1.0, unused=False, used=Used(100.0))
    one._trip(2.0)
    reserved(other, 500, TOKENS, now=2.0)  # with the trip in turn


def test_what_is_known_of_an_idle_run_is_let_go_by_the_replica_and_kept_by_the_ledger() -> None:
    lasting = QuotaPolicy("run_budget/calls", Per.RUN, 1, 86400, "1 calls", lasts=True)
    replica = Replica("a", Ledger())
    replica.settle(reserved(replica, 0, lasting), 0.0, unused=False)
    replica.holdings._turn_at = KEPT_S + 1.0
    replica._trip(KEPT_S + 1.0)
    assert replica._quotas == {}
    assert lacked(replica, 0, lasting, now=KEPT_S + 2.0)[0] is Reason.RUN_BUDGET_SPENT


def test_a_run_whose_part_is_spent_while_the_store_is_lost_is_not_told_to_stop() -> None:
    replica = Replica("a", Ledger())
    contact = replica.contact
    reserved(replica, 0, CALLS)
    contact.replicas = 2
    at = 1.0
    while not contact.is_alone:
        if replica.holdings.due_at(at) <= at:
            replica.holdings.pack(at)
            replica.holdings.missed("gone", at)
        replica.holdings.look(at)
        at += 0.25
    replica.holdings.look(at)
    assert SharedStore.peek(replica, claims(0, CALLS), at) is None  # of two that were left, one is its own
    at += 1.0
    replica.holdings.pack(at)  # it goes on asking for the store
    replica.holdings.missed("gone", at)
    assert SharedStore.reserve(replica, claims(0, CALLS), at) is None
    shortfall = SharedStore.reserve(replica, claims(0, CALLS), at)
    assert shortfall is not None
    assert shortfall.reason is Reason.STORE_DOWN
