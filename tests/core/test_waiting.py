from __future__ import annotations

import pytest

from proxy.core.call import Call
from proxy.core.claims import Claims, Shortfall
from proxy.core.groups import SLACK
from proxy.core.orders import BOOKED, FIRST, RETRY, UNDER_WAY, first_order, last_order, order_of
from proxy.core.policy import CapPolicy, QueuePolicy, RoutePolicy, UpstreamPolicy
from proxy.core.target import Target
from proxy.core.verdict import Reason
from proxy.core.waiting import Waiter, WaitingRoom
from proxy.stores.breakers import BreakerMachine
from tests.kit.story import tokens

CAP = CapPolicy("upstream:api", 1)
TARGET = Target(UpstreamPolicy("api", CAP, None, None), BreakerMachine("api"))
NEVER = float("inf")
BUCKET = tokens(2.0, 9.0)


def waiter_of(
    rank: int = 0,
    *,
    kind: int = FIRST,
    since: float = 0.0,
    expires_at: float = 10.0,
    max_age_s: float = 10.0,
    cost: float = 0.0,
) -> Waiter:
    route = RoutePolicy("chat", QueuePolicy(5, max_age_s), (2.0,))
    claims = Claims([(CAP.key, CAP)], [("bucket|ann", BUCKET)] if cost else [], [], cost)
    call = Call(route="chat", caller="ann", rank=rank, arrived_at=since, tokens=cost)
    return Waiter(call, TARGET, route, claims, kind, going=False, since=since, expires_at=expires_at)


def join(
    room: WaitingRoom, rank: int = 0, *, expires_at: float = 10.0, cost: float = 0.0, lacks: str = CAP.key
) -> Waiter:
    waiter = waiter_of(rank, expires_at=expires_at, cost=cost)
    if lacks == CAP.key:
        room.join(waiter, Shortfall(lacks, Reason.CAP_REACHED, 0.0, 0.0, ""), 0.0)
    else:
        room.join(waiter, Shortfall(lacks, Reason.BUCKET_EMPTY, 4.0, 0.0, ""), 0.0)
    return waiter


def test_the_kinds_of_a_class_go_in_their_order_and_all_of_them_before_the_next_class() -> None:
    orders = [order_of(rank, kind) for rank in (0, 1) for kind in (BOOKED, UNDER_WAY, FIRST, RETRY)]
    assert orders == sorted(set(orders))
    for rank in (0, 1):
        assert (orders[4 * rank], orders[4 * rank + 3]) == (first_order(rank), last_order(rank))


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


def test_the_next_event_is_whatever_is_first_somebodys_end_or_a_refill() -> None:
    room = WaitingRoom()
    join(room, expires_at=9.0, cost=1.0, lacks="bucket|ann")
    assert room.next_at() == 4.0
    room.lines.opened((), 4.0)
    assert room.next_at() == 9.0


@pytest.mark.parametrize(("expected_s", "stale_at"), [(0.0, 5.0), (3.9, 5.0), (6.0, 7.0)])
def test_who_waits_longer_than_predicted_and_half_the_greatest_age_is_stale(
    expected_s: float, stale_at: float
) -> None:
    waiter = waiter_of()
    assert waiter.stale_at == NEVER
    waiter.expect(expected_s)
    assert waiter.stale_at == stale_at


def test_a_newcomer_who_asks_for_less_waits_behind_one_who_waits_for_more_of_the_same_bucket() -> None:
    room = WaitingRoom()
    join(room, 1, cost=8.0, lacks="bucket|ann")
    behind = room.behind(order_of(1, FIRST), waiter_of(1, cost=1.0).claims, 1.0)
    assert behind is not None
    assert (behind.key, behind.reason, behind.wait_s, behind.step_s) == (
        "bucket|ann", Reason.BUCKET_EMPTY, 3.0, 0.5,
    )  # fmt: skip
    assert room.behind(order_of(0, FIRST), waiter_of(0, cost=1.0).claims, 1.0) is None, "it goes before"
    assert room.behind(order_of(1, FIRST), waiter_of(1, cost=9.5).claims, 1.0) is None, (
        "never, says the store"
    )
    assert room.behind(order_of(1, FIRST), waiter_of(1).claims, 1.0) is None, "it asks for none"


def test_after_a_reload_everybody_is_where_they_were() -> None:
    room = WaitingRoom()
    first, second, urgent = join(room, 1), join(room, 1), join(room, 0)
    room.regroup(0.0)
    assert room.waiters() == [first, second, urgent]
    (group,) = room.lines.opened((), 0.0) or room.lines.everyone()
    served = []
    while (waiter := group.head(0.0)) is not None:
        served.append(waiter)
        room.leave(waiter)
    assert served == [urgent, first, second]


def test_an_empty_room_remembers_nobody() -> None:
    room = WaitingRoom()
    for _ in range(3):
        for waiter in [join(room, rank % 3) for rank in range(500)]:
            room.leave(waiter)
    assert (room.size, room.waiters(), room.lines.everyone()) == (0, [], [])
    assert (room.lanes._lanes, room.lanes._callers, room.lines._lacking) == ({}, {}, {})
    assert len(room._expiry) <= SLACK


def test_those_who_left_are_dropped_before_they_are_more_than_half_of_what_is_kept() -> None:
    room = WaitingRoom()
    join(room, 2)
    for _ in range(5000):
        room.leave(join(room, 0, expires_at=1e9))
    assert len(room._expiry) <= 2 + SLACK
