"""What a refusal advises is true: who follows it at once is admitted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.advice import MOST, NEAR_BYTES, Followers
from proxy.core.book import Ticket
from proxy.core.call import Call
from proxy.core.gate import Gate
from proxy.core.grant import Grant
from proxy.core.policy import (
    BucketPolicy,
    CallerPolicy,
    CapPolicy,
    Per,
    Policy,
    QueuePolicy,
    RoutePolicy,
    Unit,
    UpstreamPolicy,
)
from proxy.core.tickets import Line
from proxy.core.verdict import Outcome, Reason, Refusal
from proxy.core.waiting import Waiter
from proxy.stores.breakers import BreakerMachine
from proxy.stores.memory import MemoryStore


def tokens(rate_per_s: float, burst: float, per: Per = Per.ROUTE) -> BucketPolicy:
    return BucketPolicy(f"chat/{per}", per, rate_per_s, burst, "tokens", Unit.TOKENS)


def gate(
    *buckets: BucketPolicy, cap: int = 1000, queue: int = 0, callers: dict[str, CallerPolicy] | None = None
) -> Gate:
    policy = Policy(
        ("high", "low"),
        {"chat": RoutePolicy("chat", QueuePolicy(queue, 1.0), (2.0, 2.0), buckets)},
        {"api": UpstreamPolicy("api", CapPolicy("upstream:api", cap), None, None)},
        callers or {},
    )
    return Gate(policy, MemoryStore(), BreakerMachine, [].append)


def offer(
    gate: Gate, now: float, caller: str = "ann", cost: float = 0.0, rank: int = 0
) -> Grant | Refusal | Waiter:
    call = Call(route="chat", caller=caller, arrived_at=now, tokens=cost, rank=rank)
    return gate.offer(call, "api", now)


def told(verdict: object) -> int:
    """The most tokens advised, and the place kept besides is given back, as for who follows."""
    assert isinstance(verdict, Refusal)
    if verdict.advice is None:
        return 0
    if verdict.ticket is not None:
        verdict.ticket.give_back()
    return verdict.advice.tokens


@given(
    rate=st.floats(0.001, 1000),
    burst=st.floats(1, 10_000),
    second=st.none() | st.floats(1, 10_000),
    asked=st.lists(
        st.tuples(st.floats(0, 30), st.sampled_from(["ann", "bob"]), st.integers(1, 10_000)), max_size=30
    ),
)
def test_who_asks_for_as_many_tokens_as_advised_goes_at_once(
    rate: float, burst: float, second: float | None, asked: list[tuple[float, str, int]]
) -> None:
    buckets = [tokens(rate, burst)] + ([tokens(rate, second, Per.CALLER)] if second else [])
    front, now = gate(*buckets), 0.0
    for pause_s, caller, cost in asked:
        now += pause_s
        verdict = offer(front, now, caller, cost)
        if isinstance(verdict, Refusal) and verdict.reason is Reason.BUCKET_EMPTY and (most := told(verdict)):
            assert most < cost
            assert isinstance(offer(front, now, caller, most), Grant)


def test_it_is_told_the_most_that_would_pass() -> None:
    front = gate(tokens(1.0, 1000))
    assert isinstance(offer(front, 0.0, cost=400), Grant)
    assert told(offer(front, 0.0, cost=700)) == 600
    assert told(offer(front, 0.0, cost=601)) == 600


def test_what_is_kept_for_another_is_not_advised() -> None:
    front = gate(tokens(100.0, 1000))
    assert isinstance(offer(front, 0.0, cost=400), Grant)
    kept = offer(front, 0.0, "bob", cost=700)
    assert isinstance(kept, Refusal)
    assert kept.ticket is not None
    assert told(offer(front, 0.0, "ann", cost=700)) == 0
    kept.ticket.give_back()
    assert told(offer(front, 0.0, "ann", cost=700)) == 600


def test_no_fewer_tokens_are_advised_where_something_else_is_lacking_too() -> None:
    full = gate(tokens(1.0, 1000), cap=1)
    assert isinstance(offer(full, 0.0, cost=400), Grant)
    assert told(offer(full, 0.0, cost=700)) == 0
    requests = BucketPolicy("chat/requests", Per.ROUTE, 0.001, 1.0, "1 request")
    spent = gate(tokens(1.0, 1000), requests)
    assert isinstance(offer(spent, 0.0, cost=400), Grant)
    assert told(offer(spent, 0.0, cost=700)) == 0


def test_no_fewer_tokens_are_advised_to_pass_by_those_who_wait() -> None:
    front = gate(tokens(1000.0, 1000), queue=5)
    assert isinstance(offer(front, 0.0, cost=1000), Grant)
    assert isinstance(offer(front, 0.5, "bob", cost=600), Waiter)
    late = Call(route="chat", caller="ann", arrived_at=0.5, tokens=900.0)
    refusal = front.offer(late, "api", 0.5, may_wait=False)
    assert told(refusal) == 0


@given(burst=st.floats(1, 10_000), second=st.floats(1, 10_000), cost=st.integers(1, 20_000))
def test_what_can_never_pass_is_told_what_can(burst: float, second: float, cost: int) -> None:
    front = gate(tokens(1.0, burst), tokens(1.0, second, Per.CALLER))
    verdict = offer(front, 0.0, cost=cost)
    if isinstance(verdict, Grant):
        return
    assert isinstance(verdict, Refusal)
    assert verdict.reason is Reason.TOO_DEAR
    most = told(verdict)
    assert most == int(min(burst, second))
    assert isinstance(offer(front, 0.0, cost=most), Grant)


@given(slots=st.integers(1, 60), callers=st.integers(1, 8), low=st.integers(0, 8))
def test_where_all_keep_to_the_number_of_calls_advised_none_is_refused(
    slots: int, callers: int, low: int
) -> None:
    front = gate(cap=slots)
    who = [(f"caller{at}", int(at < low)) for at in range(callers)]
    grants = []
    for _ in range(slots):
        for caller, rank in who:
            verdict = offer(front, 0.0, caller, rank=rank)
            grants += [verdict] if isinstance(verdict, Grant) else []
    advised = {}
    for caller, rank in who:
        verdict = offer(front, 0.5, caller, rank=rank)
        assert isinstance(verdict, Refusal)
        assert verdict.advice is not None
        advised[caller] = verdict.advice.parallel
    for grant in grants:
        front.settle(grant, Outcome.SUCCEEDED, 1.0)
    if slots < callers:
        assert set(advised.values()) == {1}
        return
    assert all(number >= slots // (callers + 1) for number in advised.values()), "nor far too few"
    refused = [
        caller
        for caller, number in advised.items()
        for _ in range(number)
        if not isinstance(offer(front, 1.0, caller), Grant)
    ]
    assert refused == []


def test_of_its_own_cap_a_caller_is_told_the_number() -> None:
    front = gate(callers={"*": CallerPolicy(3)})
    for caller in ("bob", "cid", "ann", "ann", "ann"):
        assert isinstance(offer(front, 0.0, caller), Grant)
    refusal = offer(front, 0.0)
    assert isinstance(refusal, Refusal)
    assert refusal.advice is not None
    assert refusal.advice.parallel == 3


def test_callers_who_went_long_ago_share_no_more() -> None:
    front = gate(cap=8)
    for caller in ("bob", "cid", "dan"):
        grant = offer(front, 0.0, caller, rank=1)
        assert isinstance(grant, Grant)
        front.settle(grant, Outcome.SUCCEEDED, 0.1)
    assert all(isinstance(offer(front, 60.0), Grant) for _ in range(8))
    refusal = offer(front, 60.0)
    assert isinstance(refusal, Refusal)
    assert refusal.advice is not None
    assert refusal.advice.parallel == 8


KEY = ("ann", "run", b"/v1/chat", 1000)


def ticket() -> Ticket:
    sold = Line().book(1.0, 1.0, 0.0)
    assert sold is not None
    return sold


@pytest.mark.parametrize(
    ("key", "cost", "gives_back"),
    [
        (KEY, 500.0, True),
        ((*KEY[:3], 1000 + NEAR_BYTES), 500.0, True),
        ((*KEY[:3], 1001 + NEAR_BYTES), 500.0, False),
        (KEY, 501.0, False),
        (("bob", *KEY[1:]), 500.0, False),
        (("ann", "another run", *KEY[2:]), 500.0, False),
    ],
)
def test_the_place_of_the_larger_call_is_given_back_for_the_smaller_one_only(
    key: tuple[str, str, bytes, int], cost: float, gives_back: bool
) -> None:
    followers, kept = Followers(), ticket()
    followers.told(KEY, 500, kept)
    followers.came(key, cost)
    assert kept.is_open is not gives_back
    assert len(followers) == (0 if gives_back else 1)


def test_a_place_that_is_taken_already_is_awaited_no_longer() -> None:
    followers, kept = Followers(), ticket()
    followers.told(KEY, 500, kept)
    kept.give_back()
    followers.came(KEY, 9000.0)
    assert len(followers) == 0


def test_no_more_than_so_many_are_awaited() -> None:
    followers = Followers()
    for at in range(MOST + 10):
        followers.told(("ann", f"run {at}", b"/", 10), 500, ticket())
    assert len(followers) == MOST
    followers.came(("ann", "run 0", b"/", 10), 1.0)
    assert len(followers) == MOST, "it was the oldest"
