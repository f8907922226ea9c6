from __future__ import annotations

import pytest

from proxy.core.repeats import (
    HOLD_S,
    HORIZON_S,
    MOST,
    STREAMED_BYTES,
    TELLING_BYTES,
    TRACES_PER_KEY,
    Key,
    Repeats,
)
from proxy.core.tickets import Line

KEY: Key = ("ann", "r1", b"/v1/chat", 120)
OTHER: Key = (*KEY[:3], 121)


def test_a_call_that_was_never_refused_is_new() -> None:
    assert Repeats().match(KEY, None, now=0.0) is None


def test_a_refused_call_that_returns_is_recognised_once() -> None:
    repeats = Repeats()
    repeats.refused(KEY, None, 3.0, now=100.0)
    trace = repeats.match(KEY, None, now=103.0)
    assert trace is not None
    assert trace.due_at == 103.0
    assert repeats.match(KEY, None, now=103.0) is None
    assert len(repeats) == 0


def test_another_path_caller_run_or_length_is_another_call() -> None:
    repeats = Repeats()
    repeats.refused(KEY, None, 3.0, now=0.0)
    for other in (
        OTHER,
        ("bob", *KEY[1:]),
        (KEY[0], "r2", *KEY[2:]),
        (*KEY[:2], b"/v1/models", KEY[3]),
    ):
        assert repeats.match(other, None, now=3.0) is None


def test_another_body_of_the_same_length_is_no_early_repeat() -> None:
    # A fleet fills one template: its prompts are equally long, and its calls share one caller and no run.
    repeats = Repeats()
    repeats.refused(KEY, b"digest", 3.0, now=0.0)
    assert repeats.wants_digest(KEY, now=1.0)
    assert repeats.match(KEY, b"another", now=1.0) is None
    trace = repeats.match(KEY, b"digest", now=1.0)
    assert trace is not None
    assert not trace.invites(1.0)


def test_at_the_time_told_the_body_need_not_be_read() -> None:
    repeats = Repeats()
    repeats.refused(KEY, b"digest", 3.0, now=0.0)
    assert not repeats.wants_digest(KEY, now=3.0)
    trace = repeats.match(KEY, None, now=3.0)
    assert trace is not None
    assert trace.invites(3.0)


def test_the_length_alone_proves_an_early_repeat_of_a_long_body_only() -> None:
    repeats = Repeats()
    long = (*KEY[:3], TELLING_BYTES)
    for key in (KEY, long):
        repeats.refused(key, None, 3.0, now=0.0)
    assert repeats.match(KEY, None, now=1.0) is None
    assert not repeats.wants_digest(long, now=1.0)
    trace = repeats.match(long, None, now=1.0)
    assert trace is not None
    assert not trace.invites(1.0)


def test_a_failed_call_is_recognised_by_its_body() -> None:
    repeats = Repeats()
    repeats.failed(KEY, b"digest", now=0.0)
    assert repeats.wants_digest(KEY, now=1.0)
    assert repeats.match(KEY, b"another", now=1.0) is None
    trace = repeats.match(KEY, b"digest", now=1.0)
    assert trace is not None
    assert trace.due_at == float("inf")


def test_the_body_need_not_be_read_for_a_call_refused_at_the_door() -> None:
    repeats = Repeats()
    repeats.refused(KEY, None, 3.0, now=0.0)
    assert not repeats.wants_digest(KEY, now=1.0)


def test_a_refused_call_is_recognised_until_a_minute_after_the_instant_told() -> None:
    repeats = Repeats()
    repeats.refused(KEY, None, 3.0, now=0.0)
    assert repeats.match(KEY, None, now=3.0 + HORIZON_S) is not None
    repeats.refused(KEY, None, 3.0, now=0.0)
    assert repeats.match(KEY, None, now=3.1 + HORIZON_S) is None
    assert len(repeats) == 0


def test_a_failure_is_forgotten_in_time_although_an_older_refusal_is_still_awaited() -> None:
    # A refusal lives on from the instant told, a failure from its own: the older may outlive the younger.
    repeats = Repeats()
    repeats.refused(KEY, None, 50.0, now=0.0)
    repeats.failed(KEY, b"digest", now=1.0)
    late = 2.0 + HORIZON_S
    assert not repeats.wants_digest(KEY, now=late)
    trace = repeats.match(KEY, b"digest", now=late)
    assert trace is not None
    assert trace.digest is None
    assert repeats.match(KEY, b"digest", now=late) is None


def test_only_so_many_equal_calls_are_told_apart() -> None:
    repeats = Repeats()
    for _ in range(3 * TRACES_PER_KEY):
        repeats.refused(KEY, None, 1.0, now=0.0)
    assert len(repeats) == TRACES_PER_KEY


def test_memory_is_bounded_and_the_oldest_are_forgotten_first() -> None:
    repeats = Repeats()
    for number in range(MOST + 5000):
        repeats.refused((*KEY[:3], number), None, 1.0, now=0.0)
    assert len(repeats) == MOST
    assert repeats.match((*KEY[:3], 0), None, now=1.0) is None
    assert repeats.match((*KEY[:3], MOST + 4999), None, now=1.0) is not None


def test_a_promise_is_kept_though_thousands_are_refused_after_it() -> None:
    """At ten times an upstream of 320 calls/s, 3,000 a second are: all that is remembered came in seven."""
    repeats, line = Repeats(), Line()
    promised = []
    for number in range(4 * MOST):
        now, key = number / 3000.0, (*KEY[:3], number)
        ticket = None
        if number % 40 == 0:
            ticket = line.book(20.0, 0.001, now)
            assert ticket is not None
            promised.append((key, ticket))
        repeats.refused(key, None, 20.0, now, ticket=ticket)
    assert len(repeats) <= MOST + len(promised)
    awaited = [(key, ticket) for key, ticket in promised if ticket.due_at > now]
    assert len(awaited) > 1000
    for key, ticket in awaited:
        trace = repeats.match(key, None, ticket.due_at)
        assert trace is not None
        assert trace.ticket is ticket
        assert repeats.match(key, None, ticket.due_at) is None, "it is used up"


def test_of_those_who_are_awaited_the_oldest_are_forgotten_too() -> None:
    repeats, line = Repeats(), Line()
    for number in range(3 * MOST):
        ticket = line.book(1.0, 0.001, 0.0) if number < 50_000 else None
        repeats.refused((*KEY[:3], number), None, 50.0, now=0.0, ticket=ticket)
    assert len(repeats) == 2 * MOST


def test_nobody_is_awaited_for_ever() -> None:
    repeats, line = Repeats(), Line()
    for number in range(2 * MOST):
        repeats.refused((*KEY[:3], number), None, 20.0, now=0.0, ticket=line.book(1.0, 0.0, 0.0))
    assert len(repeats) == 2 * MOST
    for number in range(MOST):
        repeats.refused((*KEY[:3], -1 - number), None, 1.0, now=70.0)
    assert len(repeats) <= MOST


def test_a_spared_call_that_is_refused_again_is_one_call() -> None:
    repeats, line = Repeats(), Line()
    ticket = line.book(20.0, 0.001, 0.0)
    repeats.refused(KEY, None, 20.0, now=0.0, ticket=ticket)
    for number in range(MOST):
        repeats.refused((*KEY[:3], 1000 + number), None, 20.0, now=1.0)
    assert len(repeats) == MOST + 1
    assert repeats.match(KEY, None, now=20.0) is not None
    repeats.refused(KEY, None, 20.0, now=20.0)
    assert repeats.match(KEY, None, now=40.0) is not None
    assert repeats.match(KEY, None, now=40.0) is None
    assert len(repeats) <= MOST


def test_a_repeat_is_known_to_cost_what_the_first_did():
    repeats = Repeats()
    repeats.refused(KEY, b"digest", 3.0, now=0.0, tokens=7.0)
    trace = repeats.match(KEY, b"digest", now=1.0)
    assert trace is not None
    assert trace.tokens == 7.0
    repeats.failed(KEY, b"digest", now=1.0, tokens=8.0)
    trace = repeats.match(KEY, b"digest", now=1.0)
    assert trace is not None
    assert trace.tokens == 8.0


def test_keys_of_which_nothing_is_left_are_forgotten_too():
    repeats = Repeats()
    repeats.failed(KEY, b"digest", now=0.0)
    for number in range(3 * MOST):
        key = (*KEY[:3], 1000 + number)
        repeats.refused(key, None, 1.0, now=0.0)
        assert repeats.match(key, None, now=1.0) is not None
    assert len(repeats._rows) <= 2 * MOST
    assert repeats.match(KEY, b"digest", now=1.0) is not None, "none of them pushes out what is not used up"


@pytest.mark.parametrize("returns", [True, False])
def test_what_has_ended_is_forgotten_though_nobody_asks_for_it(returns: bool) -> None:
    repeats = Repeats()
    for number in range(2000):
        key = (*KEY[:3], 1000 + number)
        repeats.refused(key, None, 1.0, now=float(number))
        if returns:
            assert repeats.match(key, None, now=number + 1.0) is not None
        assert len(repeats._rows) <= HORIZON_S + 3
        assert len(repeats) == (0 if returns else len(repeats._rows))


LONG: Key = (*KEY[:3], TELLING_BYTES + 100)


@pytest.mark.parametrize("less", STREAMED_BYTES)
def test_a_long_call_is_known_again_though_it_is_not_streamed(less: int) -> None:
    repeats = Repeats()
    repeats.failed(LONG, None, now=0.0, cut=True)
    trace = repeats.match((*LONG[:3], LONG[3] - less), None, now=0.2)
    assert trace is not None
    assert trace.not_before == HOLD_S
    assert not trace.invites(0.2)
    assert len(repeats) == 0


@pytest.mark.parametrize(
    ("key", "at"),
    [
        ((*LONG[:3], LONG[3] - 15), 0.2),
        ((*LONG[:3], LONG[3] + 14), 0.2),
        ((LONG[0], "r2", LONG[2], LONG[3] - 14), 0.2),
        ((*LONG[:3], LONG[3] - 14), 2.5),
    ],
    ids=["another length", "longer", "another run", "not at once"],
)
def test_by_its_length_less_stream_only_an_instant_repeat_is_known(key: Key, at: float) -> None:
    repeats = Repeats()
    repeats.failed(LONG, None, now=0.0, cut=True)
    assert repeats.match(key, None, now=at) is None
    assert repeats.match(LONG, None, now=at) is not None


def test_a_return_that_was_asked_for_is_not_known_by_another_length() -> None:
    repeats = Repeats()
    repeats.refused(LONG, None, 0.1, now=0.0)
    assert repeats.match((*LONG[:3], LONG[3] - 14), None, now=0.2) is None


def test_only_what_was_cut_is_held_when_it_comes_again() -> None:
    repeats = Repeats()
    repeats.failed(KEY, b"digest", now=5.0)
    trace = repeats.match(KEY, b"digest", now=5.1)
    assert trace is not None
    assert not trace.not_before
