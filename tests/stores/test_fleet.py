"""Replicas that share one ledger, in virtual time: what they grant together is what one would.

The ledger behind them is `core/ledger.py`; `test_lua_equals_core.py` says that Redis does the same.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from loadtests.fleet import Fleet, claims
from loadtests.fleet_stories import JOINED_S, Buckets, Caps
from proxy.core.demand import TRIP_S
from proxy.core.ledger import LEASE_S, Ledger
from proxy.core.policy import BucketPolicy, OnStoreFailure, Per, QuotaPolicy, Unit
from proxy.core.verdict import Reason
from proxy.stores.contact import LONGEST_S, Phase
from proxy.stores.holdings import MOST_ASKS

GRAIN = 1e-2
"""Of a bucket: a call may go a microsecond early (`core/rounding.py`), here up to 1,600 a second."""


@pytest.mark.parametrize(
    ("replicas", "skew", "least"), [(4, 1, 0.98), (4, 8, 0.98), (16, 1, 0.95), (16, 8, 0.95)]
)
def test_a_bucket_is_used_up_and_never_exceeded(replicas: int, skew: int, least: float) -> None:
    story = Buckets(rate=100.0 * replicas, burst=100.0 * replicas, replicas=replicas, load=1.5, skew=skew)
    story.fleet.run(20.0)
    assert story.over <= GRAIN
    assert story.used(10.0, 20.0) >= least


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_granted_twice_whoever_dies_and_joins(seed: int) -> None:
    chance = Random(seed)
    story = Buckets(
        rate=chance.choice((5.0, 50.0, 400.0)),
        burst=chance.choice((60.0, 200.0, 400.0)),
        replicas=chance.randint(2, 6),
        load=chance.uniform(0.5, 3.0),
        skew=chance.choice((1, 8)),
        seed=seed,
    )
    fleet = story.fleet
    for number, at in enumerate(sorted(chance.uniform(5.0, 25.0) for _ in range(3))):
        fleet.at(at, lambda: fleet.join() and None)
        fleet.at(at + chance.uniform(0.0, 3.0), fleet.replicas[number % 2].kill)
    fleet.run(35.0)
    assert story.over <= GRAIN


@pytest.mark.parametrize(
    ("rate", "burst", "cost"),
    [(10000.0, 10000.0, 2500.0), (5000.0, 10000.0, 4000.0), (3.0, 3.0, 1.0), (10.0, 1.0, 1.0)],
)
@pytest.mark.parametrize("seed", range(4))
def test_few_dear_calls_exceed_no_more_than_many_cheap_ones(
    rate: float, burst: float, cost: float, seed: int
) -> None:
    """Tokens are fetched for one call then, and what is not used of them goes back."""
    fleet = Fleet(Random(seed))
    policy = BucketPolicy("b", Per.ROUTE, rate, burst, "", Unit.TOKENS)
    for _ in range(4):
        fleet.join()

    def arrive() -> None:
        asked = claims(buckets=(("b|all", policy),), tokens=fleet.chance.choice((cost, cost / 50)))
        replica = fleet.chance.choice(fleet.replicas)
        # Some turn out cheaper than thought, and some never go.
        unused, used = fleet.chance.random() < 0.2, asked.tokens * fleet.chance.uniform(0.2, 1.0)

        def begins() -> None:
            place = len(fleet.granted) - 1

            def ends() -> None:
                replica.settle(asked, unused=unused, used_tokens=None if unused else used)
                fleet.granted[place] = (*fleet.granted[place][:2], 0.0 if unused else used)

            fleet.at(fleet.now + fleet.chance.expovariate(2.0), ends)

        replica.offer(asked, begins)
        fleet.at(fleet.now + fleet.chance.expovariate(3.0 * rate / cost), arrive)

    fleet.at(JOINED_S, arrive)
    fleet.run(40.0)
    assert fleet.over("b|all", rate, burst) <= 1e-5 * burst + rate * 0.002


def test_a_dear_call_is_not_starved_by_cheap_ones() -> None:
    story = Buckets(rate=400.0, burst=400.0, replicas=4, load=1.5)
    fleet = story.fleet
    granted_at: list[float] = []
    story.spared = fleet.replicas[1]  # in the gate, who waits there for tokens is not overtaken by newcomers
    dear = claims(buckets=(("b|all", replace(story.policy, unit=Unit.TOKENS)),), tokens=240.0)
    fleet.at(
        15.0, lambda: fleet.replicas[1].offer(dear, lambda: granted_at.append(fleet.now), patience_s=60.0)
    )
    fleet.run(45.0)
    assert granted_at
    assert granted_at[0] < 30.0
    assert story.over <= GRAIN


@pytest.mark.parametrize(
    ("replicas", "skew", "rate", "burst"),
    [
        (4, 1, 200.0, 200.0),
        (4, 8, 200.0, 200.0),
        (4, 1, 96.0, 48.0),
        (16, 1, 640.0, 640.0),
        (16, 8, 640.0, 640.0),
    ],
)
@pytest.mark.parametrize("load", [1.0, 5.0])
def test_a_hot_key_costs_the_trips_in_turn_and_refusals_cost_none(
    replicas: int, skew: int, rate: float, burst: float, load: float
) -> None:
    """Once, what is never leased was fetched out of turn, and so was what a trip on its way would bring."""
    story = Buckets(rate=rate, burst=burst, replicas=replicas, load=load, skew=skew)
    story.fleet.run(10.0)
    trips = story.trips
    story.fleet.run(25.0)
    assert story.trips - trips <= 1.2 * replicas * 15.0 / TRIP_S


@pytest.mark.parametrize("idle_s", [3.0, 7.0, 9.0, 20.0])
def test_a_load_that_comes_back_costs_few_trips(idle_s: float) -> None:
    """What it was is nearly forgotten by then: each trip is to bring more than the one before."""
    fleet = Fleet(Random(1))
    replica = fleet.join()
    bucket, quota = BucketPolicy("b", Per.ROUTE, 1e6, 1e6, ""), QuotaPolicy("q", Per.ROUTE, 10**9, 3600, "")

    def call() -> None:
        replica.offer(claims(buckets=(("b|all", bucket),), quotas=(("q|all", quota),)))

    def calls_for_a_second() -> None:
        begin = fleet.now
        for number in range(4000):
            fleet.at(begin + number / 4000, call)
        fleet.run(begin + 1.0)

    fleet.run(JOINED_S)
    calls_for_a_second()
    fleet.run(fleet.now + idle_s)
    trips = replica.trips
    calls_for_a_second()
    assert len(fleet.granted) >= 4 * 4000 - 20, "all but those who wait still"
    assert replica.trips - trips <= 30


def test_a_cold_key_costs_one_trip_a_call_at_most() -> None:
    story = Buckets(rate=0.5, burst=20.0, replicas=4, load=1.0)
    story.fleet.run(60.0)
    idle = Buckets(rate=0.5, burst=20.0, replicas=4, load=1e-9)
    idle.fleet.run(60.0)
    assert story.calls > 20
    assert story.trips - idle.trips <= 2 * story.calls  # its own, and the one in turn that hands back


@pytest.mark.parametrize("down_s", [0.2, 2.0, 10.0])
def test_while_the_store_is_away_nobody_exceeds_the_limit_and_soon_after_it_is_used_again(
    down_s: float,
) -> None:
    story = Buckets(rate=400.0, burst=400.0, replicas=4, load=1.5)
    fleet = story.fleet
    fleet.at(10.0, lambda: setattr(fleet, "down", True))
    fleet.at(10.0 + down_s, lambda: setattr(fleet, "down", False))
    fleet.run(30.0)
    assert story.over <= GRAIN
    back = 10.0 + down_s + LONGEST_S + LEASE_S
    assert story.used(back, 30.0) >= 0.9
    if down_s > 2 * LEASE_S:  # its part of the limit, as soon as all leases have ended
        assert story.used(10.0 + LEASE_S + 0.5, 10.0 + down_s) >= 0.95
        assert all(Phase.ALONE in replica.phases for replica in fleet.replicas)


@pytest.mark.parametrize("rate", [5.0, 400.0])
def test_what_a_flush_forgets_the_replicas_remember(rate: float) -> None:
    story = Buckets(rate=rate, burst=400.0, replicas=4, load=1.5)
    fleet = story.fleet
    for at in (12.0, 20.0):
        fleet.at(at, lambda: setattr(fleet, "ledger", Ledger()))
    fleet.run(40.0)
    assert story.over <= 0.005 * 400.0
    assert story.used(30.0, 40.0) >= 0.95


@pytest.mark.parametrize("rate", [5.0, 400.0])
def test_where_the_ledgers_own_key_is_evicted_nothing_is_granted_twice(rate: float) -> None:
    """As after a flush. (An account that is evicted alone is full again: hence `noeviction`.)"""

    def evict() -> None:
        fleet.ledger._seq, fleet.ledger._learning_until, fleet.ledger._replicas = 0, 0.0, {}

    story = Buckets(rate=rate, burst=400.0, replicas=4, load=1.5)
    fleet = story.fleet
    for at in (12.0, 20.0):
        fleet.at(at, evict)
    fleet.run(40.0)
    assert story.over <= GRAIN
    assert story.used(30.0, 40.0) >= 0.95
    assert all(replica.phases.count(Phase.LEARNING) >= 2 for replica in fleet.replicas)


def test_a_replica_that_never_reached_the_store_serves_only_where_the_route_says_so() -> None:
    fleet = Fleet(Random(1), down=True)
    replica = fleet.join()
    policy = BucketPolicy("b", Per.ROUTE, 10.0, 10.0, "")
    fleet.run(1.0)
    assert replica.phases == [Phase.GIVEN_UP]
    for word, reason in (
        (OnStoreFailure.SHARE, Reason.STORE_DOWN),
        (OnStoreFailure.REFUSE, Reason.STORE_DOWN),
        (OnStoreFailure.OPEN, None),
    ):
        asked = claims(buckets=(("b|all", policy),), on_store_failure=word)
        shortfall = replica.store.reserve(asked, replica.clock)
        # Open: it begins with nothing, as anybody who comes new.
        assert (shortfall.reason if shortfall else None) in (reason, Reason.BUCKET_EMPTY)
        assert word is not OnStoreFailure.OPEN or shortfall is None or shortfall.wait_s <= 0.1


@pytest.mark.parametrize(
    ("slots", "replicas", "skew", "least"),
    [(10, 4, 1, 0.95), (10, 4, 8, 0.85), (1, 4, 1, 0.8), (100, 16, 8, 0.85)],
)
def test_a_cap_is_used_and_never_exceeded(slots: int, replicas: int, skew: int, least: float) -> None:
    story = Caps(slots=slots, replicas=replicas, load=1.5, skew=skew)
    story.fleet.run(30.0)
    assert story.most <= slots
    assert story.used_s / (slots * 20.0) >= least


@pytest.mark.parametrize("service_s", [1.2, 1.5, 2.4])
def test_what_lies_idle_at_one_replica_is_of_use_at_another_though_calls_are_long(service_s: float) -> None:
    story = Caps(slots=10, replicas=2, load=2.0, skew=8, service_s=service_s)
    story.fleet.run(610.0)
    assert story.most <= 10
    assert story.used_s / (story.slots * 600.0) >= 0.965


@pytest.mark.parametrize("seed", range(5))
def test_a_cap_is_not_exceeded_when_all_come_back_from_an_outage(seed: int) -> None:
    story = Caps(slots=10, replicas=4, load=1.5, longest_s=LEASE_S, seed=seed)
    fleet = story.fleet
    fleet.at(10.0, lambda: setattr(fleet, "down", True))
    fleet.at(20.0, lambda: setattr(fleet, "down", False))
    fleet.run(30.0)
    assert story.most <= 10


def test_of_a_cap_that_is_smaller_than_the_fleet_somebody_goes_on_while_all_are_alone() -> None:
    story = Caps(slots=1, replicas=4, load=1.5)
    fleet = story.fleet
    fleet.at(10.0, lambda: setattr(fleet, "down", True))
    fleet.run(30.0)
    assert story.most == 1
    assert story.used_s > 5.0


@pytest.mark.parametrize("seed", range(6))
def test_a_cap_is_never_exceeded_whatever_happens(seed: int) -> None:
    chance = Random(seed)
    story = Caps(
        slots=chance.choice((1, 3, 10, 40)),
        replicas=chance.randint(2, 5),
        load=chance.uniform(0.5, 2.0),
        skew=chance.choice((1, 8)),
        # Calls of a replica that is killed go on upstream, but no longer than its lease.
        longest_s=LEASE_S,
        seed=seed,
    )
    fleet = story.fleet
    fleet.at(chance.uniform(6.0, 30.0), fleet.replicas[0].kill)
    fleet.at(chance.uniform(6.0, 30.0), lambda: fleet.join() and None)
    at = chance.uniform(6.0, 25.0)
    fleet.at(at, lambda: setattr(fleet, "down", True))
    fleet.at(at + chance.uniform(0.1, 10.0), lambda: setattr(fleet, "down", False))
    fleet.at(chance.uniform(6.0, 30.0), lambda: setattr(fleet, "ledger", Ledger()))
    fleet.run(45.0)
    assert story.most <= story.slots


def test_who_leaves_hands_back_what_it_holds() -> None:
    def used_after(leaves: bool) -> float:
        story = Buckets(rate=100.0, burst=10.0, replicas=2, load=3.0, skew=8)
        fleet, gone = story.fleet, story.fleet.replicas[0]
        fleet.run(12.0)
        gone.kill()
        if leaves:
            trip = gone.holdings.pack(gone.clock, leaving=True)
            fleet.ledger.trip(trip, fleet.now)
            assert not gone.holdings.has_more
        fleet.run(14.0)
        assert story.over <= GRAIN
        return story.used(12.5, 14.0)

    assert used_after(leaves=True) >= 0.85
    assert used_after(leaves=False) <= 0.5


@pytest.mark.parametrize("seed", range(4))
def test_a_quota_is_exact_over_replicas_that_come_and_go(seed: int) -> None:
    chance = Random(seed)
    fleet = Fleet(chance)
    policy = QuotaPolicy("q", Per.ROUTE, 300, 3600, "")
    for _ in range(4):
        fleet.join()

    def arrive() -> None:
        replica = chance.choice([each for each in fleet.replicas if each.alive])
        replica.offer(claims(quotas=(("q|all", policy),)))
        fleet.at(fleet.now + chance.expovariate(50.0), arrive)

    fleet.at(JOINED_S, arrive)
    fleet.at(6.0, fleet.replicas[0].kill)
    fleet.at(7.0, lambda: fleet.join() and None)
    fleet.run(30.0)
    granted = fleet.total("q|all", 0.0, 30.0)
    assert granted <= 300
    assert granted >= 300 - 60  # what the one that was killed had with it


def test_however_many_keys_there_are_all_of_them_are_told_to_a_ledger_that_has_forgotten() -> None:
    fleet = Fleet(Random(1))
    policy = QuotaPolicy("q", Per.CALLER, 2, 3600, "")
    replica = fleet.join()
    fleet.run(JOINED_S)
    callers = [f"q|caller:{number}" for number in range(5 * MOST_ASKS)]
    for _ in range(2):
        for key in callers:
            replica.offer(claims(quotas=((key, policy),)))
        fleet.run(fleet.now + 1.0)
    assert len(fleet.granted) == 2 * len(callers)
    trips = replica.trips
    fleet.ledger = Ledger()
    fleet.run(fleet.now + 2 * LEASE_S)
    for key in callers:
        replica.offer(claims(quotas=((key, policy),)))
    fleet.run(fleet.now + 1.0)
    assert len(fleet.granted) == 2 * len(callers), "each has had its two"
    assert replica.trips - trips < 60, "and it took no more trips than that takes"


def test_who_was_alone_tells_all_it_knows_however_much_that_is() -> None:
    fleet = Fleet(Random(1))
    policy = QuotaPolicy("q", Per.CALLER, 2, 3600, "")
    one, other = fleet.join(), fleet.join()
    fleet.run(JOINED_S)
    callers = [f"q|caller:{number}" for number in range(3 * MOST_ASKS)]
    for key in callers:
        one.offer(claims(quotas=((key, policy),)))
        one.offer(claims(quotas=((key, policy),)))
    fleet.run(fleet.now + 1.0)
    assert len(fleet.granted) == 2 * len(callers)
    fleet.down = True
    fleet.run(fleet.now + 10.0)
    fleet.ledger, fleet.down = Ledger(), False
    fleet.run(fleet.now + 10.0)
    for key in callers:
        other.offer(claims(quotas=((key, policy),)))
    fleet.run(fleet.now + 1.0)
    assert len(fleet.granted) == 2 * len(callers)


def test_while_a_trip_is_on_its_way_a_slice_is_what_it_was() -> None:
    """What is promised in that moment is counted by its rate, not by that of all replicas together."""
    story = Buckets(rate=400.0, burst=400.0, replicas=4, load=1.5)
    story.fleet.run(10.0)
    (bucket,) = story.fleet.replicas[0].holdings.buckets.values()
    before = bucket.own_rate, bucket.most
    assert before[0] < 200.0
    assert before[1] < 200.0
    bucket.ask(story.fleet.replicas[0].clock)
    assert (bucket.own_rate, bucket.most) == before
