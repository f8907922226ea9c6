from __future__ import annotations

from proxy.core.call import Call
from proxy.core.claims import Claims
from proxy.core.lines import SLACK, Lines, first_of
from proxy.core.policy import CapPolicy, Per, QueuePolicy, RoutePolicy, UpstreamPolicy
from proxy.core.target import Target
from proxy.core.waiting import Waiter
from proxy.stores.breakers import BreakerMachine
from tests.kit.story import bucket

CAP = CapPolicy("upstream:api", 1)
TARGET = Target(UpstreamPolicy("api", CAP, None, None), BreakerMachine("api"))
ROUTE = RoutePolicy("chat", QueuePolicy(5, 10.0), (2.0,))
API, SEARCH = "upstream:api", "tool:chat/search"
NEVER = float("inf")


class Crowd:
    """Lines with waiters of which only the claims and the class matter."""

    def __init__(self) -> None:
        self.lines = Lines()
        self.seq = 0

    def stand(
        self,
        lacks: str,
        *,
        caps: tuple[str, ...] = (API,),
        caller: str = "",
        rank: int = 1,
        at: float = NEVER,
    ) -> Waiter:
        buckets = [(f"bucket|{caller}", bucket(1.0, per=Per.CALLER))] if caller else []
        claims = Claims([(key, CapPolicy(key, 1)) for key in caps], buckets, [])
        call = Call(route="chat", caller=caller, rank=rank, arrived_at=0.0)
        waiter = Waiter(call, TARGET, ROUTE, claims, since=0.0, expires_at=99.0)
        self.seq += 1
        waiter.seq, waiter.waiting = self.seq, True
        self.lines.stand(waiter, lacks, at)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        waiter.waiting = False
        self.lines.step_out(waiter)

    def served(self, *keys: str, now: float = 0.0) -> list[Waiter]:
        """Who would go, one after the other, if these keys had room without end."""
        opened, order = self.lines.opened(keys, now), []
        while (waiter := first_of(opened)) is not None:
            order.append(waiter)
            self.leave(waiter)
        return order


def test_the_most_important_goes_first_whatever_group_it_stands_in() -> None:
    crowd = Crowd()
    plain = crowd.stand(API, rank=2)
    with_bucket = crowd.stand(API, caller="ann", rank=1)
    with_tool = crowd.stand(API, caps=(API, SEARCH), rank=0)
    assert crowd.served(API) == [with_tool, with_bucket, plain]


def test_nobody_is_looked_at_whose_key_has_no_room() -> None:
    crowd = Crowd()
    crowd.stand(SEARCH, caps=(API, SEARCH))
    assert crowd.served(API) == []


def test_a_newcomer_joins_the_want_of_its_group() -> None:
    crowd = Crowd()
    first = crowd.stand(API, caller="ann")
    second = crowd.stand("bucket|bob", caller="bob", at=3.0)
    assert crowd.served(API) == [first]
    assert crowd.served(now=3.0) == [second]


def test_one_callers_want_closes_nobody_elses_way() -> None:
    crowd = Crowd()
    ann, bob = crowd.stand(API, caller="ann"), crowd.stand(API, caller="bob")
    opened = crowd.lines.opened((API,), 0.0)
    assert first_of(opened) is ann
    crowd.lines.lacks(ann, "bucket|ann", 5.0, opened)
    assert first_of(opened) is bob
    crowd.lines.lacks(bob, API, NEVER, opened)
    assert first_of(opened) is None
    assert crowd.lines.next_at() == 5.0


def test_a_full_cap_closes_every_group_that_needs_it() -> None:
    crowd = Crowd()
    first = crowd.stand(API)
    crowd.stand(API, caps=(API, SEARCH))
    opened = crowd.lines.opened((API,), 0.0)
    crowd.lines.lacks(first, API, NEVER, opened)
    assert opened == []
    assert len(crowd.served(API)) == 2


def test_who_becomes_ready_while_a_cap_is_full_goes_when_the_cap_has_room() -> None:
    crowd = Crowd()
    crowd.stand(API, caller="ann", rank=2)
    set_aside = crowd.stand("bucket|bob", caller="bob", rank=0, at=5.0)
    assert crowd.served(now=5.0) == []
    assert crowd.served(API)[0] is set_aside


def test_how_many_are_ahead_counts_those_who_would_be_served_first() -> None:
    crowd = Crowd()
    for rank in (0, 1, 1, 2):
        crowd.stand(API, rank=rank)
    assert [crowd.lines.ahead(API, 2 * rank) for rank in (0, 1, 2)] == [1, 3, 4]
    assert crowd.lines.ahead(SEARCH, 4) == 0


def test_a_group_that_nobody_is_left_in_is_forgotten_and_so_is_its_timer() -> None:
    crowd = Crowd()
    crowd.leave(crowd.stand("bucket|ann", caller="ann", at=5.0))
    assert crowd.lines.everyone() == []
    assert crowd.lines.next_at() == NEVER


def test_what_is_stale_is_dropped_before_it_is_more_than_half() -> None:
    crowd = Crowd()
    stays = crowd.stand(API, caller="ann", rank=2)
    for number in range(3000):
        crowd.leave(crowd.stand(API, caller=("ann", "bob")[number % 2], rank=0))
    assert stays.group is not None
    for group in stays.group.path():
        assert len(group.heap) <= 2 + SLACK
    for number in range(3000):
        crowd.leave(crowd.stand(f"bucket|{number}", caller=str(number), at=float(number)))
    assert len(crowd.lines._ready) <= 2 + SLACK
