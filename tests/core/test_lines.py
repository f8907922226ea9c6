from __future__ import annotations

from proxy.core.call import Call
from proxy.core.cap import Cap
from proxy.core.claims import Claims, Shortfall
from proxy.core.groups import SLACK
from proxy.core.heads import first_of, last_of
from proxy.core.lines import Lines
from proxy.core.orders import BOOKED, FIRST, RETRY, UNDER_WAY, order_of
from proxy.core.policy import CapPolicy, Per, QueuePolicy, RoutePolicy, UpstreamPolicy
from proxy.core.target import Target
from proxy.core.verdict import Reason
from proxy.core.waiting import Waiter
from proxy.stores.breakers import BreakerMachine
from tests.kit.story import bucket, tokens

CAP = CapPolicy("upstream:api", 1)
ROUTE = RoutePolicy("chat", QueuePolicy(5, 10.0), (2.0,))
API, SEARCH = "upstream:api", "tool:chat/search"
COMMON = "bucket|route:chat"
NEVER = float("inf")


def lacking(key: str, at: float = NEVER, *, kept: bool = False) -> Shortfall:
    """Found lacking at 0.0 until `at`, or until somebody settles."""
    reason = Reason.CAP_REACHED if at == NEVER else Reason.BUCKET_EMPTY
    return Shortfall(key, reason, at, 0.0, "", kept=kept)


class Crowd:
    """Lines with waiters of which only the claims, the class and the caller matter."""

    def __init__(self) -> None:
        self.target = Target(UpstreamPolicy("api", CAP, None, None), BreakerMachine("api"))
        self.lines = Lines()
        self.seq = 0

    def stand(
        self,
        lacks: str,
        *,
        caps: tuple[str, ...] = (API,),
        caller: str = "",
        run: str = "",
        rank: int = 1,
        kind: int = FIRST,
        going: bool = False,
        at: float = NEVER,
        since: float = 0.0,
        cost: float = 0.0,
        kept: bool = False,
        stale_at: float = NEVER,
    ) -> Waiter:
        """`cost`: in tokens of its caller's bucket; else its caller, if it has one, has a bucket of calls."""
        policy = tokens(1.0, 9.0) if cost else bucket(1.0, per=Per.CALLER)
        buckets = [(f"bucket|{caller}", policy)] if caller else []
        if run:
            buckets.append((f"bucket|{run}", bucket(1.0, per=Per.RUN)))
        claims = Claims([(key, Cap(key, 1)) for key in caps], buckets, [], cost)
        call = Call(route="chat", caller=caller, run=run, rank=rank, arrived_at=since, tokens=cost)
        waiter = Waiter(call, self.target, ROUTE, claims, kind, going=going, since=since, expires_at=99.0)
        self.seq += 1
        waiter.seq, waiter.waiting, waiter.stale_at = self.seq, True, stale_at
        self.lines.stand(waiter, lacking(lacks, at, kept=kept) if lacks else None, since)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        waiter.waiting = False
        self.lines.step_out(waiter)

    def serve(self, waiter: Waiter) -> None:
        """It goes, and its caller is charged for it."""
        self.leave(waiter)
        self.target.flow.granted(waiter.call, 0.0, in_turn=True)

    def served(self, *keys: str, now: float = 0.0) -> list[Waiter]:
        """Who would go, one after the other, if these keys had room without end."""
        opened, order = self.lines.opened(keys, now), []
        while (waiter := first_of(opened, now)) is not None:
            order.append(waiter)
            self.serve(waiter)
        return order


# ── whose turn it is ────────────────────────────────────────────────────────────────────────────────


def test_the_most_important_goes_first_whatever_group_it_stands_in() -> None:
    crowd = Crowd()
    plain = crowd.stand(API, rank=2)
    with_bucket = crowd.stand(API, caller="ann", rank=1)
    with_tool = crowd.stand(API, caps=(API, SEARCH), rank=0)
    assert crowd.served(API) == [with_tool, with_bucket, plain]


def test_callers_take_turns_however_many_each_has_sent() -> None:
    crowd = Crowd()
    loud = [crowd.stand(API, caller="loud") for _ in range(4)]
    quiet = [crowd.stand(API, caller="quiet") for _ in range(2)]
    assert crowd.served(API) == [loud[0], quiet[0], loud[1], quiet[1], loud[2], loud[3]]


def test_callers_take_turns_across_groups() -> None:
    crowd = Crowd()
    loud = [crowd.stand(API, caller="loud") for _ in range(3)]
    quiet = [crowd.stand(API, caps=(API, SEARCH), caller="quiet") for _ in range(2)]
    assert crowd.served(API) == [loud[0], quiet[0], loud[1], quiet[1], loud[2]]


def test_what_a_caller_had_in_one_group_counts_in_the_other() -> None:
    crowd = Crowd()
    ann = crowd.stand(API, caller="ann")
    ann_again = crowd.stand(API, caps=(API, SEARCH), caller="ann")
    bob = crowd.stand(API, caps=(API, SEARCH), caller="bob")
    assert crowd.served(API) == [ann, bob, ann_again]


def test_a_run_under_way_goes_before_the_same_callers_others() -> None:
    crowd = Crowd()
    new = crowd.stand(API, caller="ann")
    going = crowd.stand(API, caller="ann", going=True)
    assert going.precedes(new)
    assert crowd.served(API) == [going, new]


def test_retries_are_last_of_their_class_and_before_the_next() -> None:
    crowd = Crowd()
    low = crowd.stand(API, rank=2, kind=UNDER_WAY)
    retry = crowd.stand(API, kind=RETRY, caller="ann")
    first = crowd.stand(API, kind=FIRST, caller="bob")
    assert crowd.served(API) == [first, retry, low]


def test_the_newest_goes_first_once_the_oldest_is_stale_and_until_nobody_is_left() -> None:
    crowd = Crowd()
    waiters = [crowd.stand(API) for _ in range(3)]
    waiters[0].stale_at = 5.0
    opened = crowd.lines.opened((API,), 4.9)
    assert first_of(opened, 4.9) is waiters[0]
    assert first_of(opened, 5.0) is waiters[2]
    crowd.serve(waiters[2])
    newer = crowd.stand(API, since=5.0)
    assert crowd.served(API, now=5.0) == [newer, waiters[1], waiters[0]]
    after = [crowd.stand(API, since=6.0) for _ in range(2)]
    assert crowd.served(API, now=6.0) == after, "an empty row is not stale any more"


def test_of_those_who_were_told_a_time_it_is_the_one_to_whom_it_can_still_be_kept_and_soonest_not() -> None:
    crowd = Crowd()
    late, last, first, middle = (crowd.stand(API, kind=BOOKED, stale_at=at) for at in (2.0, 9.0, 5.0, 7.0))
    opened = crowd.lines.opened((API,), 1.9)
    assert first_of(opened, 1.9) is late
    assert first_of(opened, 2.0) is first
    crowd.leave(first)
    order = []
    while (waiter := first_of(opened, 2.0)) is not None:
        order.append(waiter)
        crowd.serve(waiter)
    assert order == [middle, last, late]


def test_what_is_noted_of_those_who_were_told_a_time_goes_with_them() -> None:
    crowd = Crowd()
    stays = crowd.stand(API, kind=BOOKED, stale_at=9.0)
    for _ in range(10 * SLACK):
        crowd.leave(crowd.stand(API, kind=BOOKED, stale_at=8.0))
    assert stays.row is not None
    assert len(stays.row._due or ()) <= SLACK + 3
    assert crowd.served(API) == [stays]


def test_the_last_is_who_is_next_of_the_least_important() -> None:
    crowd = Crowd()
    crowd.stand(API, rank=0)
    crowd.stand(API, caps=(API, SEARCH), rank=1)
    low = crowd.stand(API, rank=2)
    crowd.stand(API, rank=2)
    opened = crowd.lines.opened((API,), 0.0)
    assert last_of(opened, 0.0) is low


# ── nobody is asked in vain, and nobody is passed over ──────────────────────────────────────────────


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
    assert first_of(opened, 0.0) is ann
    crowd.lines.lacks(ann, lacking("bucket|ann", 5.0), 0.0, opened)
    assert first_of(opened, 0.0) is bob
    crowd.lines.lacks(bob, lacking(API), 0.0, opened)
    assert first_of(opened, 0.0) is None
    assert crowd.lines.next_at() == 5.0


def test_one_runs_want_closes_no_other_run_of_its_caller() -> None:
    crowd = Crowd()
    one, other = crowd.stand(API, caller="ann", run="r1"), crowd.stand(API, caller="ann", run="r2")
    opened = crowd.lines.opened((API,), 0.0)
    crowd.lines.lacks(one, lacking("bucket|r1", 5.0), 0.0, opened)
    assert first_of(opened, 0.0) is other
    crowd.serve(other)
    assert first_of(opened, 0.0) is None
    assert crowd.served(now=5.0) == [one]


def test_a_full_cap_closes_every_group_that_needs_it() -> None:
    crowd = Crowd()
    first = crowd.stand(API)
    crowd.stand(API, caps=(API, SEARCH))
    opened = crowd.lines.opened((API,), 0.0)
    crowd.lines.lacks(first, lacking(API), 0.0, opened)
    assert first_of(opened, 0.0) is None
    assert opened == []
    assert len(crowd.served(API)) == 2


def test_what_is_kept_from_the_less_important_is_not_kept_from_the_more_important() -> None:
    crowd = Crowd()
    low = crowd.stand(API, rank=2)
    normal = crowd.stand("", rank=1)
    opened = crowd.lines.opened((API,), 0.0)
    crowd.lines.lacks(low, lacking(API), 0.0, opened)
    assert first_of(opened, 0.0) is normal
    crowd.lines.lacks(normal, lacking(API), 0.0, opened)
    assert first_of(opened, 0.0) is None
    critical = crowd.stand(API, rank=0)
    assert crowd.served(API) == [critical, normal, low]


def test_a_newcomer_for_whom_it_is_kept_does_not_find_its_group_closed() -> None:
    crowd = Crowd()
    crowd.stand(API, rank=2)
    group = crowd.lines.everyone()[0]
    assert group.closed_from == order_of(2, FIRST)
    crowd.stand(API, rank=0)
    assert group.closed_from == order_of(0, FIRST)
    crowd.stand(API, rank=1)
    assert group.closed_from == order_of(0, FIRST)


def test_who_becomes_ready_while_a_cap_is_full_goes_when_the_cap_has_room() -> None:
    crowd = Crowd()
    crowd.stand(API, caller="ann", rank=0)
    set_aside = crowd.stand("bucket|bob", caller="bob", rank=1, at=5.0)
    assert crowd.served(now=5.0) == []
    assert crowd.served(API)[1] is set_aside


def test_a_dear_call_holds_up_who_comes_after_it_until_it_leaves() -> None:
    crowd = Crowd()
    dear = crowd.stand("bucket|ann", caller="ann", cost=5.0, at=5.0)
    cheap = crowd.stand("bucket|ann", caller="ann", cost=1.0, at=1.0)
    crowd.lines.opened((), 1.0)
    assert crowd.lines.next_at() == 5.0 or crowd.served(now=1.0) == []
    crowd.leave(dear)
    assert crowd.served(now=1.0) == [cheap]


def test_what_is_kept_from_one_holds_up_who_may_have_it_until_that_one_leaves() -> None:
    crowd = Crowd()
    came_before = crowd.stand(API, caps=(API, COMMON), rank=1)
    kept_out = crowd.stand(COMMON, caps=(API, COMMON), rank=0, at=5.0, kept=True)
    assert crowd.served(API) == []
    crowd.leave(kept_out)
    assert crowd.served(now=0.0) == [came_before]


def test_who_leaves_opens_every_way_that_it_closed_though_its_own_is_closed_for_more_by_then() -> None:
    crowd = Crowd()
    came_before = crowd.stand(API, caps=(API, COMMON, "route:chat"), rank=1)
    kept_out = crowd.stand(API, caps=(API, COMMON), rank=0)
    opened = crowd.lines.opened((API,), 0.0)
    crowd.lines.lacks(kept_out, lacking(COMMON, 5.0, kept=True), 0.0, opened)
    crowd.stand(API, caps=(API, COMMON), rank=0, kind=UNDER_WAY)
    crowd.leave(kept_out)
    assert crowd.served(now=0.0) == [came_before]


def test_what_is_kept_from_one_closes_nobodys_way_who_has_a_ticket_and_what_is_lacking_does() -> None:
    crowd = Crowd()
    booked = crowd.stand(API, caps=(API, COMMON), rank=1, kind=BOOKED)
    kept_out = crowd.stand(API, caps=(API, COMMON), rank=0)
    opened = crowd.lines.opened((API,), 0.0)
    assert first_of(opened, 0.0) is kept_out
    crowd.lines.lacks(kept_out, lacking(COMMON, 5.0, kept=True), 0.0, opened)
    assert first_of(opened, 0.0) is booked
    crowd.lines.lacks(booked, lacking(API), 0.0, opened)
    assert first_of(opened, 0.0) is None
    opened = crowd.lines.opened((API, COMMON), 0.0)
    crowd.lines.lacks(kept_out, lacking(COMMON, 5.0), 0.0, opened)
    assert first_of(opened, 0.0) is None


def test_a_run_under_way_is_not_held_up_by_a_dear_call_that_it_precedes() -> None:
    crowd = Crowd()
    dear = crowd.stand("bucket|ann", caller="ann", cost=5.0, at=5.0)
    going = crowd.stand(API, caller="ann", cost=1.0, going=True)
    assert crowd.served(API) == [going, dear]


# ── how long it will take ───────────────────────────────────────────────────────────────────────────


def ahead_of(crowd: Crowd, rank: int = 1, caller: str = "", key: str = API) -> tuple[int, int]:
    """How many go before one more, and how many of them are of its class."""
    caps = (API, SEARCH) if not caller else (API,)
    waiter = crowd.stand(key, caps=caps, rank=rank, caller=caller)
    crowd.leave(waiter)
    return crowd.lines.ahead(key, waiter)


def test_how_many_are_ahead_counts_those_who_would_be_served_first() -> None:
    crowd = Crowd()
    for rank in (0, 1, 1, 2):
        crowd.stand(API, rank=rank)
    assert [ahead_of(crowd, rank) for rank in (0, 1, 2)] == [(1, 1), (3, 2), (4, 1)]
    assert ahead_of(crowd, 2, key=SEARCH) == (0, 0)


def test_a_quiet_caller_has_one_of_each_other_caller_ahead_of_it_and_not_their_crowds() -> None:
    crowd = Crowd()
    for caller in ("loud",) * 8 + ("quiet",):
        crowd.stand(API, caller=caller)
    ahead = {caller: ahead_of(crowd, caller=caller)[0] for caller in ("loud", "quiet", "new")}
    assert ahead == {"loud": 9, "quiet": 3, "new": 2}


def test_those_who_lack_something_else_are_not_ahead() -> None:
    crowd = Crowd()
    crowd.stand(API, caller="bob")
    crowd.stand("bucket|ann", caller="ann", at=3.0)
    assert ahead_of(crowd, caller="cy")[0] == 1
    assert ahead_of(crowd, caller="ann", key="bucket|ann")[0] == 1


# ── nothing is left behind ──────────────────────────────────────────────────────────────────────────


def test_a_group_that_nobody_is_left_in_is_forgotten_and_so_is_its_timer() -> None:
    crowd = Crowd()
    crowd.leave(crowd.stand("bucket|ann", caller="ann", at=5.0))
    crowd.leave(crowd.stand(API))
    assert crowd.lines.everyone() == []
    assert crowd.lines.next_at() == NEVER
    assert crowd.lines._lacking == {}


def test_the_counts_of_who_could_go_survive_closing_opening_and_leaving_in_any_order() -> None:
    crowd = Crowd()
    ann = [crowd.stand(API, caller="ann", run=f"r{number % 2}") for number in range(4)]
    bob = crowd.stand(API, caller="bob")
    (group,) = crowd.lines.everyone()
    level = group.levels[order_of(1, FIRST)]
    opened = crowd.lines.opened((API,), 0.0)
    crowd.lines.lacks(ann[0], lacking("bucket|r0", 5.0), 0.0, opened)
    assert level.open == 3
    crowd.lines.lacks(ann[1], lacking("bucket|ann", 6.0), 0.0, opened)
    assert level.open == 1
    crowd.leave(ann[0])
    crowd.lines.opened((), 5.0)
    assert level.open == 1, "the run may go on, its caller may not"
    crowd.lines.opened((), 6.0)
    assert level.open == 4
    crowd.leave(bob)
    assert level.open == 3
    assert len(crowd.served("")) == 0


def test_what_is_stale_is_dropped_before_it_is_more_than_half() -> None:
    crowd = Crowd()
    stays = crowd.stand(API, caller="ann", rank=2)
    for number in range(3000):
        crowd.leave(crowd.stand(API, caller=f"c{number}", rank=2))
        crowd.leave(crowd.stand(API, caller="ann", run=f"r{number}", rank=2))
    assert stays.row is not None
    assert len(stays.row.party._heap) <= 2 + SLACK
    assert len(stays.row.party.bay._heap) <= 2 + SLACK


def test_tools_that_nobody_waits_for_any_more_are_forgotten() -> None:
    crowd = Crowd()
    stays = crowd.stand(API, caller="ann")
    assert stays.row is not None
    level = stays.row.party.bay.level
    for number in range(3000):
        crowd.leave(crowd.stand(API, caps=(API, f"tool:chat/t{number}"), caller="bob"))
    assert list(level.bays) == [()]
    assert len(level._heap) <= 2 + SLACK
    assert level.callers == {"ann": 1}
    for number in range(3000):
        crowd.leave(crowd.stand(f"bucket|{number}", caller=str(number), at=float(number)))
    assert len(crowd.lines._ready) <= 2 + SLACK
