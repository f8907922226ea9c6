"""What an upstream says of its own allowances: the balance between two words, and who goes by it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.allowance import RESERVE, Allowance
from proxy.core.call import Call
from proxy.core.gate import Gate
from proxy.core.grant import Grant
from proxy.core.hearing import hear
from proxy.core.policy import Policy
from proxy.core.told import MIXED, MOST_HELD_S, MOST_POOLS
from proxy.core.verdict import OVERLOADED, SUCCEEDED, UNUSED, Reason, Refusal
from proxy.core.waiting import Waiter
from proxy.core.word import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKENS, Said, Word
from proxy.settings import parse, to_policy
from proxy.stores.breakers import BreakerMachine
from proxy.stores.memory import MemoryStore

YAML = """
upstreams: {{there: {{url: "http://upstream.test", dialect: openai, concurrency: 500, {more}}}}}
routes: [{{name: r, path: /, upstream: there, queue: {{size: {size}, max_age: 30s}}}}]
"""


def policy(size: int = 50, more: str = "retry_budget: off") -> Policy:
    return to_policy(parse(YAML.format(size=size, more=more), "test.yaml", {}))


class Door:
    """A gate, and the time."""

    def __init__(self, size: int = 50, more: str = "retry_budget: off") -> None:
        self.gate = Gate(policy(size, more), MemoryStore(), BreakerMachine, lambda _: None)
        self.now = 100.0

    @property
    def target(self) -> Any:
        return self.gate.targets["there"]

    def ask(self, caller: str = "c", **more: Any) -> Grant | Refusal | Waiter:
        pool = more.pop("pool", "")
        call = Call(route="r", caller=caller, arrived_at=self.now, **more)
        call.pool = pool
        return self.gate.offer(call, "there", self.now)

    def grant(self, caller: str = "c", **more: Any) -> Grant:
        grant = self.ask(caller, **more)
        assert isinstance(grant, Grant)
        return grant

    def hear(self, grant: Grant, *said: Said, **more: Any) -> Refusal | None:
        return hear(self.gate, grant, Word(list(said), **more), self.now)

    def end(self, grant: Grant, outcome: Any = SUCCEEDED) -> None:
        self.gate.settle(grant, outcome, self.now)

    def serve(self, until: float) -> list[tuple[float, Grant | Refusal]]:
        """Whoever is decided until then, and when."""
        decided = []
        while (at := self.gate.next_at()) <= until:
            self.now = max(self.now, at)
            self.gate.advance(self.now)
            decided += [(self.now, waiter.verdict) for waiter in self.gate.take_decided()]
        self.now = until
        return decided


def requests(remaining: float, limit: float = 60.0, **more: Any) -> Said:
    """As OpenAI has it: a minute refills all of it."""
    return Said(REQUESTS, remaining, limit - remaining, limit, refills=True, **more)


def told(door: Door, *said: Said, **more: Any) -> None:
    grant = door.grant(**more)
    door.hear(grant, *said)
    door.end(grant)


def test_an_upstream_that_says_nothing_has_nothing_of_this() -> None:
    door = Door()
    grant = door.grant()
    door.end(grant)
    assert door.target.told is None
    assert grant.marks == []
    door = Door(more="pace: off")
    told(door, requests(0))
    assert door.target.told is None


def test_nobody_waits_while_there_is_plenty_and_then_as_it_refills() -> None:
    door = Door(size=100)
    told(door, requests(12))
    asked = [door.ask() for _ in range(20)]
    reserve = RESERVE * 60
    at_once = int(12 - reserve)
    assert [isinstance(each, Grant) for each in asked] == [True] * at_once + [False] * (20 - at_once)
    begun = door.now
    times = [at - begun for at, _ in door.serve(begun + 12.0)]
    assert times[0] == pytest.approx(at_once + 1 + reserve - 12)  # it refills one a second
    gaps = [later - sooner for sooner, later in pairwise(times)]
    assert gaps == pytest.approx([1.0] * 9)


def test_what_is_in_flight_has_not_been_counted_by_an_older_word() -> None:
    door = Door(size=0)
    told(door, requests(60))  # so that it is heeded
    first, *others = [door.grant() for _ in range(10)]
    door.hear(first, requests(15))  # it was decided before the nine that follow
    free = [door.ask() for _ in range(8)]
    assert [isinstance(each, Grant) for each in free] == [True] * 4 + [False] * 4
    door.hear(others[-1], requests(6))  # all of them counted now, but the four
    door.hear(others[0], requests(30))  # and this says nothing new
    assert isinstance(door.ask(), Refusal)


def test_who_is_refused_for_it_is_told_whose_word_it_is_and_a_time_of_its_own() -> None:
    door = Door(size=0)
    told(door, requests(0))
    refusals = [door.ask(f"caller {each}") for each in range(5)]
    waits = [each.retry_after_s for each in refusals if isinstance(each, Refusal)]
    assert len(set(waits)) == 5
    assert {(each.reason, each.scope, each.limit) for each in refusals} == {
        (Reason.BUCKET_EMPTY, "upstream:there", "60 requests as the upstream says")
    }
    assert all(later - sooner >= 0.99 for sooner, later in pairwise(waits))
    for refusal, wait_s in zip(refusals, waits, strict=True):  # and each of them is true
        door.now = 100.0 + wait_s
        assert isinstance(door.ask("who was told nothing"), Refusal)
        door.grant(ticket=refusal.ticket)


@pytest.mark.parametrize(
    ("words", "a_second"),
    [
        pytest.param([(5, 0.0)], 5 / 60, id="nothing gone yet: as by the minute"),
        pytest.param([(3, 0.0)], 5 / 60, id="no time tells nothing"),
        pytest.param([(3, 0.8)], 2 / 1.8, id="at least so much: it is rounded, by a second at most"),
        pytest.param([(3, 0.8), (1, 1.6)], 4 / 2.6, id="more is gone, and the better it is known"),
        pytest.param([(1, 1.6), (4, 0.4)], 4 / 2.6, id="a vaguer word takes nothing back"),
        pytest.param([(4, 0.4), (1, 2.0)], 4 / 2.0, id="long enough to tell it"),
        pytest.param([(4, 0.4), (1, 4.0)], 4 / 4.0, id="and it tells of less"),
    ],
)
def test_an_upstream_of_seconds_is_not_taken_for_one_of_minutes(
    words: list[tuple[int, float]], a_second: float
) -> None:
    allowance = Allowance(Said(REQUESTS, 5.0), 1.0, 100.0)
    for remaining, reset_s in words:
        allowance.hear(Said(REQUESTS, remaining, reset_s, 5.0, refills=True), 0.0, 0.0, 100.0, 100.0)
    assert allowance.rate == pytest.approx(a_second)


def test_a_call_that_was_not_used_costs_nothing() -> None:
    door = Door(size=0)
    told(door, requests(3.5))
    grants = [door.grant(), door.grant()]
    assert isinstance(door.ask(), Refusal)
    door.end(grants[0], UNUSED)
    door.grant()


def test_a_window_is_spread_once_it_is_scarce() -> None:
    door = Door(size=100)
    grant = door.grant()
    door.hear(grant, Said(REQUESTS, 100.0, 20.0, 200.0))
    plenty = [door.ask() for _ in range(30)]  # in ten seconds: sixty in twenty
    assert all(isinstance(each, Grant) for each in plenty)
    scarce = [door.ask() for _ in range(100)]
    assert sum(isinstance(each, Grant) for each in scarce) < 20
    begun = door.now
    times = [at - begun for at, _ in door.serve(begun + 19.9)]
    assert times
    assert max(b - a for a, b in zip([0.0, *times], times, strict=False)) < 1.5  # spread, not at the end
    went = 1 + 30 + sum(isinstance(each, Grant) for each in scarce) + len(times)
    assert went <= 101  # the first was counted by the word
    begun = door.now
    assert len(door.serve(begun + 1.0)) > 20  # the next window


def test_a_429_holds_all_until_then_and_lets_go_in_steps() -> None:
    door = Door(size=100)
    grants = [door.grant(f"caller {each}") for each in range(40)]
    own = [door.hear(grant, refused=True, wait_s=20.0) for grant in grants[:3]]
    for grant in grants:
        door.end(grant, OVERLOADED)
    times = [refusal.retry_after_s for refusal in own]
    assert len(set(times)) == 3
    assert all(20.0 <= each < 30.0 for each in times)
    asked = [door.ask() for _ in range(14)]
    assert all(isinstance(each, Waiter) for each in asked)
    went = [at - 100.0 for at, verdict in door.serve(100.0 + 29.9) if isinstance(verdict, Grant)]
    assert min(went) >= 20.0
    in_each_s = [sum(20.0 + each <= at < 21.0 + each for at in went) for each in range(4)]
    assert (in_each_s[0], in_each_s[1]) <= (2, 4)  # what is kept for those three among them
    assert sum(in_each_s) == 14


def test_a_429_without_a_time_or_a_final_one_holds_nobody() -> None:
    door = Door(size=0)
    door.hear(door.grant(), refused=True)
    assert door.hear(door.grant(), refused=True, wait_s=20.0, final=True) is None
    door.grant()


def test_nobody_is_held_longer_than_a_minute_by_one_word() -> None:
    door = Door(size=0)
    door.hear(door.grant(), refused=True, wait_s=86_400.0)
    assert isinstance(door.ask(), Refusal)
    door.now += MOST_HELD_S
    door.grant()


def test_a_limit_in_a_text_holds_its_tool_alone_and_sells_no_ticket_to_who_heard_it() -> None:
    door = Door(size=0)
    assert door.hear(door.grant(tool="search"), refused=True, wait_s=20.0, tool=True) is None
    refusal = door.ask(tool="search")
    assert isinstance(refusal, Refusal)
    assert refusal.scope == "tool:r/search"
    door.grant(tool="read")
    door.grant()


def test_a_caller_with_its_own_key_goes_by_its_own_allowance() -> None:
    door = Door(size=0)
    told(door, requests(0), pool="a")
    assert isinstance(door.ask(pool="a"), Refusal)
    door.grant(pool="b")
    for each in range(2 * MOST_POOLS):
        told(door, requests(60), pool=f"key {each}")
    assert len(door.target.told.pools()) == MOST_POOLS


def test_of_several_models_in_turn_no_balance_is_heeded() -> None:
    door = Door(size=0)
    grants = [door.grant() for _ in range(2 * int(MIXED))]
    for turn, grant in enumerate(grants):
        door.hear(grant, requests(60, limit=60) if turn % 2 else requests(0, limit=10))
    door.hear(door.grant(), requests(0, limit=60))
    door.grant()
    for _ in range(150):  # now it is one again
        told(door, requests(0, limit=60))
        if isinstance(door.ask(), Refusal):
            break
    assert isinstance(door.ask(), Refusal)


def test_who_is_answered_without_a_word_three_times_goes_by_none() -> None:
    door = Door(size=0)
    grants = [door.grant() for _ in range(4)]
    door.hear(grants[0], Said(REQUESTS, 3.0, 60.0, 60.0))
    for grant in grants[1:]:
        assert isinstance(door.ask(), Refusal)
        door.hear(grant)
    for _ in range(20):
        door.grant()
    door.hear(door.grant(), Said(REQUESTS, 0.0, 60.0, 60.0))
    assert isinstance(door.ask(), Refusal), "it speaks again, and is heard"


def test_silence_of_one_whose_word_was_never_heard_is_nothing() -> None:
    door = Door()
    door.hear(door.grant())
    assert door.target.told is None
    door.hear(door.grant(pool="a"), Said(REQUESTS, 50.0, 60.0, 60.0))
    door.hear(door.grant(pool="b"))
    assert len(door.target.told.pools()) == 1


def test_a_replica_has_its_share_of_what_all_hear_of() -> None:
    door = Door(size=0)
    told(door, requests(60))
    door.target.share(None, 3)
    told(door, requests(30))
    went = 0
    while isinstance(door.ask(), Grant):
        went += 1
    assert went == 9  # a third of thirty, less the reserve
    refusal = door.ask("another")
    assert isinstance(refusal, Refusal)
    door.target.share(None, 1)  # the others have gone: the next word counts for this one alone
    told_again = door.target.told.pools()[0].allowances[0]
    assert told_again.share == 1.0


def test_dear_and_cheap_calls_pay_by_their_length_as_the_upstream_counts() -> None:
    door = Door(size=0)
    left, rate = 100_000.0, 100_000.0 / 60
    for _ in range(100):  # it counts three tokens where four bytes are sent
        door.now += 1.5
        left = min(100_000.0, left + 1.5 * rate) - 3000.0
        told(door, Said(INPUT_TOKENS, left, (100_000.0 - left) / rate, 100_000.0, refills=True), size=4000)
    allowance = door.target.told.pools()[0].allowances[0]
    assert allowance.mean == pytest.approx(3.0, rel=0.2)
    assert allowance.rate == pytest.approx(rate)


def test_what_is_charged_as_it_is_produced_is_charged_at_the_end() -> None:
    allowance = Allowance(Said(OUTPUT_TOKENS, 1000.0, 0.0, 1000.0, refills=True), 1.0, 0.0)
    allowance.hear(Said(OUTPUT_TOKENS, 1000.0, 0.0, 1000.0, refills=True), 0.0, 0.0, 0.0, 0.0)
    allowance.produced(4000, 0.0)
    allowance.hear(
        Said(OUTPUT_TOKENS, 500.0, 30.0, 1000.0, refills=True), allowance.spent, allowance.weighed, 0.0, 0.0
    )
    assert allowance.mean == pytest.approx(0.5)  # a token is eight bytes there
    allowance.produced(4000, 0.0)
    assert allowance.left == pytest.approx(0.0)
    call = Call(route="r", caller="c", arrived_at=0.0)
    assert allowance.wait_s(allowance.cost(call), 1, 0.0, 0.0, 0.0) > 0.0


units = st.sampled_from([REQUESTS, TOKENS, INPUT_TOKENS, OUTPUT_TOKENS])
amounts = st.floats(0.0, 1e12)


@given(
    st.lists(
        st.tuples(
            units,
            amounts,
            st.none() | amounts,
            st.none() | st.floats(0.0, 3e7),
            st.booleans(),
            st.floats(0.0, 1e4),
        ),
        min_size=1,
        max_size=12,
    ),
    st.none() | st.floats(0.0, 1e9),
)
def test_whatever_is_said_a_call_goes_within_a_bounded_time(rows: list[Any], wait_s: float | None) -> None:
    door = Door(size=0)
    for unit, remaining, limit, reset_s, refills, later in rows:
        door.now += later
        verdict = door.ask(size=1000)
        if isinstance(verdict, Refusal):
            assert verdict.retry_after_s is not None
            assert 0.0 <= verdict.retry_after_s <= 55.0
            continue
        whole = None if limit is None else max(limit, remaining)
        said = Said(unit, remaining, reset_s, whole, refills=refills and bool(whole))
        door.hear(verdict, said, refused=wait_s is not None, wait_s=wait_s)
        door.end(verdict)
    for pool in [] if door.target.told is None else door.target.told.pools():
        wait, step_s, _ = pool.wait(Call(route="r", caller="c", arrived_at=0.0), 1.0, 0.0, door.now)
        assert 0.0 <= wait < 4e7
        assert 0.0 <= step_s < 4e7
