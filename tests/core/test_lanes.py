from __future__ import annotations

from proxy.core.call import Call
from proxy.core.claims import Claims
from proxy.core.groups import SLACK
from proxy.core.lanes import Lanes
from proxy.core.orders import BOOKED, FIRST, RETRY, UNDER_WAY, first_order, last_order, order_of
from proxy.core.policy import CapPolicy, QueuePolicy, RoutePolicy, UpstreamPolicy
from proxy.core.target import Target
from proxy.core.waiting import Waiter
from proxy.stores.breakers import BreakerMachine

CAP = CapPolicy("upstream:api", 1)
TARGET = Target(UpstreamPolicy("api", CAP, None, None), BreakerMachine("api"))
ROUTE = RoutePolicy("chat", QueuePolicy(5, 10.0, max_bytes=100.0), (2.0,))


class Hall:
    """The lanes of one route, with who waits in them."""

    def __init__(self, route: RoutePolicy = ROUTE) -> None:
        self.lanes = Lanes()
        self.route = route
        self.seq = 0

    def newcomer(
        self,
        rank: int = 1,
        *,
        caller: str = "ann",
        kind: int = FIRST,
        weight: float = 1.0,
        size: int = 0,
        since: float = 0.0,
    ) -> Waiter:
        call = Call(route="chat", caller=caller, rank=rank, weight=weight, size=size, arrived_at=since)
        claims = Claims([(CAP.key, CAP)], [], [])
        waiter = Waiter(call, TARGET, self.route, claims, kind, going=False, since=since, expires_at=99.0)
        self.seq += 1
        waiter.seq = self.seq
        return waiter

    def join(self, *where: int, **who: object) -> Waiter:
        waiter = self.newcomer(*where, **who)  # type: ignore[arg-type]  # the keywords of `newcomer`
        self.lanes.add(waiter)
        return waiter

    def must_go(self, *where: int, **who: object) -> Waiter | None:
        """Who makes room for such a newcomer."""
        return self.lanes.displaceable(self.route, self.newcomer(*where, **who))  # type: ignore[arg-type]


# ── how many wait, how large, how long ──────────────────────────────────────────────────────────────


def test_those_who_wait_are_counted_by_route_and_order() -> None:
    hall = Hall()
    for rank in (0, 1, 1, 2):
        hall.join(rank)
    hall.join(1, kind=RETRY)
    lanes = hall.lanes
    assert (lanes.depth("chat"), lanes.depth("code")) == (5, 0)
    assert lanes.depth("chat", order_of(1, FIRST)) == 3
    assert lanes.depth("chat", last_order(1), first_order(1)) == 3


def test_the_oldest_is_known_by_class() -> None:
    hall = Hall()
    hall.join(2, since=1.0)
    hall.join(0, since=5.0)
    hall.join(0, since=6.0)
    lanes = hall.lanes
    assert lanes.oldest("chat") == 1.0
    assert lanes.oldest("chat", last_order(0)) == 5.0
    assert lanes.oldest("chat", since=first_order(1)) == 1.0
    assert lanes.oldest("chat", last_order(1), since=first_order(1)) is None
    assert lanes.oldest("code") is None


def test_a_queue_is_full_in_number_or_in_bytes() -> None:
    hall = Hall()
    assert not hall.lanes.is_full(ROUTE, 10**9), "whoever is alone has room, however large"
    hall.join(size=60)
    assert not hall.lanes.is_full(ROUTE, 40)
    assert hall.lanes.is_full(ROUTE, 41)
    for _ in range(4):
        hall.join()
    assert hall.lanes.is_full(ROUTE, 0)
    assert not hall.lanes.is_heavy(ROUTE, 0)
    assert hall.lanes.bytes_of("chat") == 60
    hall.lanes.remove(hall.lanes.waiters()[0])
    assert hall.lanes.bytes_of("chat") == 0
    assert not hall.lanes.is_full(ROUTE, 100)


# ── who makes room ──────────────────────────────────────────────────────────────────────────────────


def test_the_newest_of_the_least_important_makes_room_for_any_more_important() -> None:
    hall = Hall()
    hall.join(1)
    hall.join(2)
    newest = hall.join(2)
    assert hall.must_go(0) is newest
    assert hall.must_go(1) is newest
    assert hall.must_go(2) is None
    assert Hall().must_go(0) is None


def test_retries_make_room_before_first_attempts_of_their_class() -> None:
    hall = Hall()
    retry = hall.join(1, kind=RETRY)
    hall.join(1)
    assert hall.must_go(1) is retry
    assert hall.must_go(1, kind=RETRY) is None
    assert hall.must_go(1, kind=UNDER_WAY) is retry


def test_of_the_least_important_the_loudest_caller_makes_room_and_not_the_newest_mouse() -> None:
    hall = Hall()
    for _ in range(3):
        loudest = hall.join(2, caller="elephant")
    hall.join(2, caller="mouse")
    assert hall.must_go(0, caller="new") is loudest


def test_among_equals_only_a_louder_caller_makes_room() -> None:
    hall = Hall()
    for _ in range(3):
        last = hall.join(1, caller="elephant")
    hall.join(1, caller="mouse")
    assert hall.must_go(1, caller="mouse") is last, "two of three are no more than two of two"
    hall.join(1, caller="mouse")
    assert hall.must_go(1, caller="mouse") is None, "it would be the louder of the two"
    assert hall.must_go(1, caller="elephant") is None
    assert hall.must_go(1, caller="new") is last


def test_a_caller_of_twice_the_weight_may_hold_twice_as_many_places() -> None:
    hall = Hall()
    for _ in range(4):
        hall.join(1, caller="heavy", weight=2.0)
    for _ in range(2):
        light = hall.join(1, caller="light")
    assert hall.must_go(1, caller="light") is None
    assert hall.must_go(1, caller="heavy", weight=2.0) is None
    light = hall.join(1, caller="light")
    assert hall.must_go(0) is light


def test_who_returns_with_a_ticket_makes_room_for_nobody() -> None:
    hall = Hall()
    hall.join(2, kind=BOOKED)
    assert hall.must_go(0) is None
    first = hall.join(1)
    assert hall.must_go(0) is first


def test_nobody_goes_where_that_would_not_make_room_enough() -> None:
    hall = Hall()
    hall.join(2, kind=BOOKED, size=40)
    hall.join(1, size=40)
    low = hall.join(2, size=20)
    assert hall.must_go(1, size=20) is low
    assert hall.must_go(1, size=30) is None
    assert hall.must_go(0, size=60) is low


def test_an_equal_goes_only_if_that_alone_is_enough() -> None:
    hall = Hall()
    for _ in range(3):
        last = hall.join(1, caller="elephant", size=30)
    assert hall.must_go(1, caller="mouse", size=40) is last
    assert hall.must_go(1, caller="mouse", size=41) is None


# ── who is a crowd ──────────────────────────────────────────────────────────────────────────────────


def asking(caller: str, rank: int = 1, weight: float = 1.0) -> Call:
    return Call(route="chat", caller=caller, rank=rank, weight=weight, arrived_at=0.0)


def test_a_caller_crowds_who_holds_at_least_the_mean_of_its_class() -> None:
    hall = Hall()
    for kind in (FIRST, FIRST, RETRY, UNDER_WAY):
        hall.join(1, caller="loud", kind=kind)
    hall.join(1, caller="quiet")
    hall.join(0, caller="quiet")
    crowds = hall.lanes.crowds
    assert crowds("chat", asking("loud"), last_order(1))
    assert not crowds("chat", asking("quiet"), last_order(1))
    assert not crowds("chat", asking("new"), last_order(1))
    assert not crowds("chat", asking("loud", weight=2.0), last_order(1)), "over its weight it holds two"
    assert crowds("chat", asking("quiet", rank=0), last_order(0)), "other classes are others' business"
    assert not crowds("chat", asking("anyone", rank=2), last_order(2)), "nobody waits"


def test_who_is_served_after_a_call_is_no_crowd_to_it() -> None:
    hall = Hall()
    for _ in range(4):
        hall.join(1, caller="returns", kind=RETRY)
    crowds = hall.lanes.crowds
    assert not crowds("chat", asking("returns"), order_of(1, FIRST)), "there is nobody before it at all"
    hall.join(1, caller="other")
    hall.join(1, caller="other")
    assert crowds("chat", asking("returns"), order_of(1, RETRY)), "four of six"
    assert not crowds("chat", asking("returns"), order_of(1, FIRST)), "none of two"
    hall.join(1, caller="returns")
    assert not crowds("chat", asking("returns"), order_of(1, FIRST)), "one of three, of two callers"
    hall.join(1, caller="returns")
    assert crowds("chat", asking("returns"), order_of(1, FIRST)), "two of four"


# ── nothing is left behind ──────────────────────────────────────────────────────────────────────────


def test_who_has_left_is_forgotten() -> None:
    hall = Hall()
    stays = hall.join(1, caller="stays")
    for number in range(2000):
        for waiter in [hall.join(1, caller=f"c{number % 50}") for _ in range(3)]:
            hall.lanes.remove(waiter)
    lane = hall.lanes._lanes["chat"][stays.order]
    assert list(lane.by_caller) == ["stays"]
    assert len(lane._crowds) <= 2 * 4 + SLACK
    assert hall.must_go(0) is stays
    hall.lanes.remove(stays)
    assert (hall.lanes._lanes, hall.lanes._callers, hall.lanes.waiters()) == ({}, {}, [])
    assert hall.lanes.bytes_of("chat") == 0
