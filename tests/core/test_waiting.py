from __future__ import annotations

from proxy.core.call import Call
from proxy.core.claims import Claims
from proxy.core.policy import CapPolicy, QueuePolicy, RoutePolicy, UpstreamPolicy
from proxy.core.target import Target
from proxy.core.waiting import Waiter, WaitingRoom, order_of
from proxy.stores.breakers import BreakerMachine

CAP = CapPolicy("upstream:api", 1)
TARGET = Target(UpstreamPolicy("api", CAP, None, None), BreakerMachine("api"))
NEVER = float("inf")


def call(rank: int, *, is_retry: bool = False) -> Call:
    return Call(route="chat", caller="ann", rank=rank, is_retry=is_retry, arrived_at=0.0)


def join(room: WaitingRoom, rank: int = 0, *, since: float = 0.0, expires_at: float = 10.0) -> Waiter:
    route = RoutePolicy("chat", QueuePolicy(5, 10.0), (2.0,))
    claims = Claims([(CAP.key, CAP)], [], [])
    waiter = Waiter(call(rank), TARGET, route, claims, since=since, expires_at=expires_at)
    room.join(waiter, CAP.key, NEVER)
    return waiter


def test_a_retry_comes_after_the_first_attempts_of_its_class_and_before_the_next_class() -> None:
    orders = [order_of(call(rank, is_retry=is_retry)) for rank in (0, 1) for is_retry in (False, True)]
    assert orders == sorted(set(orders))


def test_the_longest_waiting_of_a_class_is_served_first() -> None:
    room = WaitingRoom()
    first, second, urgent = join(room, 1), join(room, 1), join(room, 0)
    assert urgent < first < second


def test_the_room_counts_its_waiters_by_route_and_order() -> None:
    room = WaitingRoom()
    for rank in (0, 1, 1, 2):
        join(room, rank)
    assert (room.size, room.depth("chat"), room.depth("chat", 2), room.depth("code")) == (4, 4, 3, 0)


def test_the_oldest_is_known_by_class() -> None:
    room = WaitingRoom()
    join(room, 2, since=1.0)
    join(room, 0, since=5.0)
    assert room.oldest("chat") == 1.0
    assert room.oldest("chat", 1) == 5.0
    assert room.oldest("chat", since=1) == 1.0
    assert room.oldest("chat", 3, since=2) is None


def test_the_newest_of_the_least_important_is_displaced_and_only_by_a_more_important() -> None:
    room = WaitingRoom()
    join(room, 1)
    join(room, 2)
    newest = join(room, 2)
    assert room.displaceable("chat", 0) is newest
    assert room.displaceable("chat", 4) is None
    assert room.displaceable("code", 0) is None


def test_who_has_waited_its_time_is_named_until_it_leaves() -> None:
    room = WaitingRoom()
    late, early = join(room, expires_at=9.0), join(room, expires_at=4.0)
    assert room.expired(3.9) is None
    assert room.next_at() == 4.0
    assert room.expired(4.0) is early
    room.leave(early)
    assert room.expired(4.0) is None
    assert room.next_at() == 9.0
    room.leave(late)
    assert room.next_at() == NEVER


def test_an_empty_room_remembers_nobody() -> None:
    room = WaitingRoom()
    for _ in range(3):
        for waiter in [join(room, rank % 3) for rank in range(500)]:
            room.leave(waiter)
    assert (room.size, room.waiters(), room.lines.everyone()) == (0, [], [])
    assert len(room._expiry) <= 64


def test_those_who_left_are_dropped_before_they_are_more_than_half_of_what_is_kept() -> None:
    room = WaitingRoom()
    stays = join(room, 2)
    for _ in range(5000):
        room.leave(join(room, 0, expires_at=1e9))
    assert stays.group is not None
    assert len(room._expiry) <= 2 + 64
    assert len(stays.group.heap) <= 2 + 64
