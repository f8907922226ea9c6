"""What a replica tells of how it stands with the ledger: over the real phases, in virtual time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from random import Random
from typing import Any

import pytest

from loadtests.fleet import TIMEOUT_S, Fleet, Replica, claims
from proxy.core.cap import Cap
from proxy.core.ledger import LEASE_S
from proxy.core.policy import BucketPolicy, OnStoreFailure, Per, QueuePolicy, QuotaPolicy, RoutePolicy
from proxy.core.state import StoreState
from proxy.stores.contact import Contact, Phase
from proxy.stores.holdings import Holdings
from proxy.stores.redis import StoreUnavailable
from proxy.stores.standing import banner, not_ready, standing
from proxy.stores.trips import Trips
from tests.kit.clock import ManualClock
from tests.kit.waiting import until

SHOWN = "redis://10.0.0.5:6379/0"
BUCKET = BucketPolicy("chat/route/requests", Per.ROUTE, 100.0, 10.0, "100 requests/second")
QUOTA = QuotaPolicy("chat/route/day", Per.ROUTE, 1000, 86400, "1000 requests/day")
CALL = claims(
    caps=(Cap("upstream:api", 8, 8),), buckets=(("b|route:chat", BUCKET),), quotas=(("q|route:chat", QUOTA),)
)


def told(replica: Replica) -> StoreState:
    return standing(replica.holdings, "redis", SHOWN, replica.clock, trips=replica.trips, missed=0, asks=0)


def says(replica: Replica) -> str:
    return banner(told(replica))


def fleet_of(size: int, safe_for_s: float = 60.0) -> tuple[Fleet, list[Replica]]:
    """So many replicas, in touch for ten seconds."""
    fleet = Fleet(Random(1))
    replicas = [fleet.join(safe_for_s=safe_for_s) for _ in range(size)]
    fleet.run(10.0)
    return fleet, replicas


def run_to(fleet: Fleet, replica: Replica, phase: Phase, within_s: float = 10.0) -> None:
    end = fleet.now + within_s
    while replica.holdings.contact.phase is not phase:
        assert fleet.now < end, f"it never came to {phase}"
        fleet.run(fleet.now + 0.01)


def seconds(text: str) -> list[float]:
    """The times that a sentence names."""
    return [float(number) for number in re.findall(r"([\d.]+) s\b", text)]


def test_one_that_has_not_set_out_yet_is_joining_and_nothing_moved() -> None:
    state = told(Fleet(Random(1)).join())
    assert (state.phase, state.why, state.since_s, state.moves_in_s) == ("joining", "", None, None)
    assert (state.joined, state.learning, state.lost_s) == (False, False, 0.0)
    assert banner(state) == (
        f"The shared store {SHOWN} was not reached yet: calls under its limits wait for it."
    )


def test_the_first_start_of_all_learns_and_says_for_how_long() -> None:
    fleet = Fleet(Random(1))
    replica = fleet.join()
    fleet.run(1.0)
    state = told(replica)
    assert (state.phase, state.learning, state.joined) == ("learning", True, False)
    assert state.moves_in_s == pytest.approx(LEASE_S - 1.0, abs=0.1)
    assert banner(state) == (
        f"The shared store {SHOWN} is in reach, and gathers the counts that it does not know: "
        "for 2.0 s more nothing is given out beyond what the replicas hold."
    )


def test_in_touch_there_is_no_banner_and_what_is_held_is_counted() -> None:
    fleet, replicas = fleet_of(4)
    replicas[0].offer(CALL, patience_s=1.0)
    fleet.run(10.2)
    state = told(replicas[0])
    assert (state.phase, state.joined, state.replicas, banner(state)) == ("shared", True, 4, "")
    assert (state.buckets, state.caps, state.quotas) == (1, 1, 1)
    assert state.since_s == pytest.approx(10.2 - LEASE_S, abs=0.1)
    assert state.moves_in_s is None
    assert (told(replicas[1]).buckets, told(replicas[1]).caps, told(replicas[1]).quotas) == (0, 0, 0)


def test_a_store_out_of_reach_is_told_from_the_first_trip_on_that_was_missed() -> None:
    fleet, (replica, *_) = fleet_of(4)
    fleet.down = True
    run_to(fleet, replica, Phase.LOST)
    state = told(replica)
    assert state.why == "no answer"
    assert state.since_s == pytest.approx(0.0, abs=0.01)
    assert state.lost_s == pytest.approx(4 * TIMEOUT_S, abs=0.15)  # two trips, and a pause between them
    assert state.moves_in_s == pytest.approx(LEASE_S + TIMEOUT_S - state.lost_s)
    lost_s, on_s = seconds(banner(state))
    assert (lost_s, on_s) == (
        pytest.approx(state.lost_s, abs=0.06),
        pytest.approx(state.moves_in_s, abs=0.06),
    )
    assert banner(state) == (
        f"The shared store {SHOWN} is out of reach for {lost_s} s: this replica spends what it holds, "
        f"and in {on_s} s enforces 1/4 of every limit."
    )


def test_alone_it_says_its_share_and_what_comes_after() -> None:
    fleet, (replica, *_) = fleet_of(4, safe_for_s=60.0)
    fleet.down = True
    run_to(fleet, replica, Phase.ALONE)
    began = fleet.now - told(replica).lost_s
    fleet.run(began + 12.0)
    state = told(replica)
    assert state.why.startswith("out of reach for 3.")
    assert state.why.endswith("s (no answer): on its own share, 1/4")
    assert state.replicas == 4
    assert banner(state) == (
        f"The shared store {SHOWN} is out of reach for 12.0 s: this replica enforces 1/4 of every limit, "
        "and in 48.0 s each route does as its on_store_failure says."
    )


def test_the_only_replica_has_the_whole_of_every_limit() -> None:
    fleet, (replica,) = fleet_of(1)
    fleet.down = True
    run_to(fleet, replica, Phase.ALONE)
    assert "this replica enforces the whole of every limit, and in" in says(replica)


def test_given_up_it_says_that_each_route_does_as_it_says() -> None:
    fleet, (replica, *_) = fleet_of(4, safe_for_s=5.0)
    fleet.down = True
    run_to(fleet, replica, Phase.GIVEN_UP)
    state = told(replica)
    assert (state.moves_in_s, state.joined) == (None, True)
    assert state.why == "out of reach for 5s (no answer): each route as it says"
    assert banner(state) == (
        f"The shared store {SHOWN} is out of reach for {state.lost_s:.1f} s: "
        "each route does as its on_store_failure says."
    )


def test_never_reached_it_says_who_is_refused() -> None:
    fleet = Fleet(Random(1), down=True)
    replica = fleet.join()
    run_to(fleet, replica, Phase.GIVEN_UP)
    assert replica.phases == [Phase.GIVEN_UP]
    assert told(replica).why == "no answer; never reached, so there is no share to go on with"
    assert says(replica) == (
        f"The shared store {SHOWN} was never reached: "
        "calls under its limits are refused, except on routes with on_store_failure: open."
    )


@pytest.mark.parametrize(
    ("safe_for_s", "phase", "does"),
    [
        (60.0, Phase.ALONE, "this replica enforces 1/4 of every limit"),
        (5.0, Phase.GIVEN_UP, "each route does as its on_store_failure says"),
    ],
)
def test_back_after_all_were_alone_it_goes_on_for_as_long_as_the_store_learns(
    safe_for_s: float, phase: Phase, does: str
) -> None:
    fleet, (replica, *_) = fleet_of(4, safe_for_s)
    fleet.down = True
    run_to(fleet, replica, phase)
    fleet.down = False
    began = fleet.now
    while not told(replica).learning:
        fleet.run(fleet.now + 0.01)
        assert fleet.now < began + 2.0
    state = told(replica)
    assert (state.phase, state.lost_s) == (phase, 0.0)
    assert banner(state) == (
        f"The shared store {SHOWN} is in reach, and gathers the counts that it does not know: "
        f"for {state.moves_in_s:.1f} s more {does}."
    )
    run_to(fleet, replica, Phase.SHARED)
    assert says(replica) == ""


def test_to_look_on_changes_nothing() -> None:
    fleet, (replica, *_) = fleet_of(2, safe_for_s=5.0)
    fleet.down = True
    run_to(fleet, replica, Phase.LOST)
    before, phases = told(replica), list(replica.phases)
    long_after = replica.clock + 100.0  # time alone would have moved it on: its next trip or call does
    state = standing(replica.holdings, "redis", SHOWN, long_after, trips=0, missed=0, asks=0)
    assert (state.phase, state.moves_in_s) == ("lost", 0.0)
    assert (told(replica), replica.phases) == (before, phases)


# ── ready ───────────────────────────────────────────────────────────────────────────────────────────


def routes(*says: str) -> list[RoutePolicy]:
    queue = QueuePolicy(size=0, max_age_s=1.0, max_bytes=0)
    return [
        RoutePolicy(f"r{n}", queue, shed_at=(), on_store_failure=OnStoreFailure(each))
        for n, each in enumerate(says)
    ]


@pytest.mark.parametrize(
    ("each", "why"),
    [
        (("open", "open"), None),
        (("open", "share"), "the store was never reached"),
        (("refuse",), "the store was never reached"),
        (("share",), "the store was never reached"),
    ],
)
def test_one_that_never_reached_the_store_is_ready_if_no_route_minds(
    each: Iterable[str], why: str | None
) -> None:
    fleet = Fleet(Random(1), down=True)
    replica = fleet.join()
    contact = replica.holdings.contact
    assert not_ready(contact, routes(*each)) == "the store was not reached yet"
    run_to(fleet, replica, Phase.GIVEN_UP)
    assert not_ready(contact, routes(*each)) == why


def test_it_is_ready_once_it_is_in_touch_and_stays_so_whatever_becomes_of_the_store() -> None:
    fleet = Fleet(Random(1))
    replica = fleet.join(safe_for_s=5.0)
    contact = replica.holdings.contact
    run_to(fleet, replica, Phase.LEARNING)
    assert not_ready(contact, routes("open")) == "the store gathers its counts"
    run_to(fleet, replica, Phase.SHARED)
    assert not_ready(contact, routes("refuse")) is None
    fleet.down = True
    for phase in (Phase.LOST, Phase.ALONE, Phase.GIVEN_UP):
        run_to(fleet, replica, phase)
        assert not_ready(contact, routes("refuse")) is None


# ── trips ───────────────────────────────────────────────────────────────────────────────────────────


class ByHand:
    """A link whose trips end when the test says so."""

    def __init__(self) -> None:
        self.calls: list[asyncio.Future[list[Any]]] = []

    async def call(self, keys: list[str], args: list[bytes | str | int | float]) -> list[Any]:
        self.calls.append(asyncio.get_running_loop().create_future())
        return await self.calls[-1]

    async def aclose(self) -> None:
        return None


async def test_trips_are_counted_and_those_that_were_answered_are_timed() -> None:
    clock, link, took = ManualClock(), ByHand(), list[float]()
    contact = Contact(safe_for_s=60.0, timeout_s=TIMEOUT_S, chance=lambda: 0.5)
    holdings = Holdings("r0", contact)
    trips = Trips(holdings, link, "ns", lambda _keys: None, clock, took.append)
    holdings.hurry("b|route:chat", holdings.bucket("b|route:chat", BUCKET, clock()))
    running = asyncio.create_task(trips._trip())
    await until(lambda: link.calls)
    clock.advance(0.02)
    bucket = [b"1", b"0", b"10", b"10", b"10", b"0"]
    link.calls[0].set_result([0, b"1", b"2", b"0", b"0", *bucket])
    await running
    state = trips.state("redis", SHOWN, clock())
    assert (state.kind, state.shown, state.phase, state.replicas) == ("redis", SHOWN, "shared", 2)
    assert (state.trips, state.missed, state.asks) == (1, 0, 1)
    assert took == [pytest.approx(0.02)]
    running = asyncio.create_task(trips._trip())
    await until(lambda: len(link.calls) == 2)
    clock.advance(0.05)
    link.calls[1].set_exception(StoreUnavailable(f"{SHOWN}: no answer in 50 ms"))
    await running
    state = trips.state("redis", SHOWN, clock())
    assert (state.trips, state.missed) == (2, 1)
    assert len(took) == 1
