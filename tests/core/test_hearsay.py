"""What one replica tells another of its calls, and what the other makes of it: stories over two gates."""

from __future__ import annotations

import pytest

from proxy.core.book import GRACE_S
from proxy.core.breaker import CLOSED, OPEN
from proxy.core.demand import TRIP_S
from proxy.core.events import Returned
from proxy.core.hearsay import MOST_HEARD, Hearsay
from proxy.core.hints import Hint
from proxy.core.outbox import MOST_WAITING, Outbox
from proxy.core.repeats import HORIZON_S, Repeats, Trace
from proxy.core.tickets import LEAST_STEP_S
from proxy.core.verdict import Outcome, Reason, Refusal
from proxy.stores.hints import Mail
from tests.kit.clock import ManualClock
from tests.kit.story import Story, admitted, after, arrives, breaker, bucket, ends, refused

FAILED = Outcome.FAILED
DIGEST = b"digest of a body"
B = ("ann", "", b"b", 1)


class Replica:
    """One of those that share a clock, and nothing else but what they tell each other."""

    def __init__(self, name: str, clock: ManualClock) -> None:
        self.story = Story().buckets(bucket(1.0)).breaker(breaker())
        self.story.clock = self.clock = clock
        self.outbox = Outbox(name)
        self.repeats = Repeats(self.outbox)
        self.hearsay = Hearsay(self.story.gate, self.repeats, self.outbox)

    def tells(self, *others: Replica, late_s: float = 0.0) -> Hint | None:
        """What it has to tell, heard so much later."""
        hint, said_at = self.hearsay.say(1 + len(others), self.clock()), self.clock()
        self.clock.advance(late_s)
        for other in others:
            if hint is not None:
                other.hearsay.hear(hint, said_at, self.clock())
        return hint

    def asks(self, name: str) -> Trace | None:
        """A call comes, is known again or not, and what it is told is remembered, as the pipeline does it."""
        key = ("ann", "", name.encode(), 1)
        trace = self.repeats.match(key, DIGEST, self.clock())
        self.story.tickets.pop(name, None)
        if trace is not None and trace.ticket is not None:
            self.story.tickets[name] = trace.ticket
        retry = trace is not None and not trace.invites(self.clock())
        self.story >> arrives(name, caller="ann", retry=retry)
        verdict = self.story.told.pop(name, None)
        if isinstance(verdict, Refusal):
            assert verdict.retry_after_s is not None
            self.repeats.refused(key, DIGEST, verdict.retry_after_s, self.clock(), ticket=verdict.ticket)
        return trace


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def one(clock: ManualClock) -> Replica:
    return Replica("one", clock)


@pytest.fixture
def other(clock: ManualClock) -> Replica:
    return Replica("other", clock)


def kept(replica: Replica) -> list[bool]:
    return [event.admitted for event in replica.story.events if isinstance(event, Returned)]


def b_is_refused(replica: Replica) -> None:
    """`a` takes the token, and `b` is to come back in a second."""
    replica.asks("a")
    replica.story << admitted("a")
    replica.asks("b")
    replica.story << refused("b", Reason.BUCKET_EMPTY, told=1.0)


def test_who_returns_to_another_replica_in_time_is_expected_there(one: Replica, other: Replica) -> None:
    b_is_refused(one)
    one.tells(other, late_s=0.4)
    other.asks("aa")
    other.story << admitted("aa")
    other.asks("bb")
    other.story << refused("bb", Reason.BUCKET_EMPTY)
    other.clock.advance(1.0)  # its one token is kept for a call of its own
    assert other.asks("cc") is None
    other.story << refused("cc", Reason.BUCKET_EMPTY)
    trace = other.asks("b")
    other.story << admitted("b")
    assert trace is not None
    assert trace.invites(other.clock())
    assert kept(other) == [True]


def test_a_place_that_was_taken_elsewhere_is_free_again(one: Replica, other: Replica) -> None:
    b_is_refused(one)
    one.tells(other)
    one.clock.advance(1.0)
    other.asks("b")
    other.story << admitted("b")
    one.story >> arrives("newcomer", caller="ann") << refused("newcomer", Reason.BUCKET_EMPTY)
    other.tells(one)
    one.story >> arrives("another", caller="ann") << admitted("another")


def test_a_return_counts_once_whoever_saw_it(one: Replica, other: Replica, clock: ManualClock) -> None:
    third = Replica("third", clock)
    b_is_refused(one)
    one.tells(other, third)
    clock.advance(1.0)
    assert other.asks("b") is not None
    other.story << admitted("b")
    other.tells(one, third)
    for replica in (one, third):
        assert replica.repeats.match(B, DIGEST, clock()) is None


def test_who_comes_too_early_to_another_replica_is_a_retry_there(one: Replica, other: Replica) -> None:
    b_is_refused(one)
    one.tells(other, late_s=0.1)
    trace = other.asks("b")
    assert trace is not None
    assert not trace.invites(other.clock())
    other.story << admitted("b")  # nothing here limits retries, and it has a token


def test_who_came_too_early_is_told_anew_and_expected_everywhere(one: Replica, other: Replica) -> None:
    b_is_refused(one)
    one.tells(other, late_s=0.1)
    other.asks("aa")
    other.story << admitted("aa")
    other.asks("b")
    other.story << refused("b", Reason.BUCKET_EMPTY, told=0.9)
    other.tells(one)
    one.clock.advance(0.9)
    trace = one.asks("b")
    one.story << admitted("b")
    assert trace is not None
    assert trace.origin is not None
    assert trace.origin[0] == "other"
    assert kept(one) == [True]


def test_what_failed_at_one_is_a_retry_at_another(one: Replica, other: Replica) -> None:
    one.repeats.failed(B, DIGEST, one.clock())
    one.tells(other, late_s=TRIP_S)
    assert other.repeats.wants_digest(B, other.clock())
    trace = other.repeats.match(B, DIGEST, other.clock())
    assert trace is not None
    assert not trace.invites(other.clock())


@pytest.mark.parametrize(("late_s", "learnt"), [(TRIP_S, 1.0), (TRIP_S + 0.1, 16 / 17)])
def test_a_return_heard_of_too_late_was_no_broken_word(
    one: Replica, other: Replica, late_s: float, learnt: float
) -> None:
    """Only who came after the grace did not keep the time; when it came is known to a trip."""
    b_is_refused(one)
    (trace,) = one.repeats._alive(B, one.clock())
    assert trace.ticket is not None
    book = trace.ticket.book
    one.tells(other)
    one.clock.advance(1.0)
    other.asks("b")
    other.story << admitted("b")
    one.clock.advance(GRACE_S + late_s)
    book.expire(one.clock())
    assert book.kept == pytest.approx(16 / 17), "nobody came here"
    other.tells(one)
    assert book.kept == pytest.approx(learnt)


def test_the_places_of_others_are_told_first_and_no_more_than_can_be_heard(
    one: Replica, other: Replica
) -> None:
    for number in range(MOST_WAITING + 10):
        one.repeats.refused(("ann", "", b"/unbooked", number), None, 50.0, one.clock())
    b_is_refused(one)
    hint = one.tells(other)
    assert hint is not None
    assert len(hint.returns) == MOST_HEARD
    assert hint.returns[0].place is not None
    assert hint.returns[1].key[3] == MOST_WAITING + 9, "then the latest"
    assert one.tells(other) is None, "what was not told is not told late"


def test_who_is_alone_keeps_for_a_second_replica_what_is_still_true(one: Replica, other: Replica) -> None:
    one.repeats.failed(("ann", "", b"long ago", 1), DIGEST, one.clock())
    one.clock.advance(HORIZON_S + 0.1)
    b_is_refused(one)
    assert one.tells() is None
    hint = one.tells(other)
    assert hint is not None
    assert [told.key for told in hint.returns] == [B]


def test_what_came_back_before_it_was_told_of_is_not_told_of(one: Replica, other: Replica) -> None:
    b_is_refused(one)
    one.clock.advance(1.0 + LEAST_STEP_S)
    one.asks("b")
    one.story << admitted("b")
    assert one.tells(other) is None


# ── an upstream that is down ────────────────────────────────────────────────────────────────────────


def api_fails(replica: Replica) -> None:
    replica.story.buckets(bucket(1000.0, 1000.0))
    replica.story >> after(0.0)
    replica.story.adopt()
    for number in range(4):
        replica.story >> arrives(f"f{number}") << admitted(f"f{number}")
        replica.story >> ends(f"f{number}", FAILED)


def phase(replica: Replica) -> str:
    found = replica.story.gate.targets["api"].breaker
    assert found is not None
    return found.phase


def test_what_is_down_at_one_replica_is_down_at_another(one: Replica, other: Replica) -> None:
    api_fails(one)
    assert phase(one) == OPEN
    one.tells(other, late_s=0.3)
    assert phase(other) == CLOSED
    other.story >> arrives("a") << refused("a", Reason.BREAKER_OPEN)
    assert other.tells(one) is None, "it has not seen that itself"


def test_unless_it_was_answered_there_meanwhile(one: Replica, other: Replica) -> None:
    api_fails(one)
    one.clock.advance(0.2)
    other.story >> arrives("a") << admitted("a") >> ends("a")
    one.tells(other, late_s=0.3)
    other.story.buckets(bucket(1000.0, 1000.0)).adopt()
    other.story >> arrives("b") << admitted("b")
    assert phase(other) == CLOSED


def test_one_probe_shows_that_only_the_other_cannot_reach_it(one: Replica, other: Replica) -> None:
    api_fails(one)
    one.tells(other)
    other.story >> arrives("a") << refused("a", Reason.BREAKER_OPEN)
    other.story >> after(1.0) >> arrives("probe", caller="bob") << admitted("probe") >> ends("probe")
    one.tells(other)
    other.story >> arrives("b", caller="cat") << admitted("b")


# ── on the way ──────────────────────────────────────────────────────────────────────────────────────


def test_a_hint_arrives_as_it_was_sent(one: Replica, other: Replica) -> None:
    b_is_refused(one)
    one.repeats.failed(B, DIGEST, one.clock())
    packed = Mail(one.hearsay).outgoing(2, one.clock())
    mail = Mail(other.hearsay)
    mail.came([(0.25, packed)], one.clock() + 7.0, one.clock() + 7.0)  # their clocks are two
    other.clock.advance(7.0)
    (trace,) = other.repeats._alive(B, other.clock())
    assert trace.due_at == pytest.approx(other.clock() + 0.75)
    assert trace.ticket is not None
    assert trace.ticket.told == (Reason.BUCKET_EMPTY, "caller:ann", "1 requests/s")
    assert len(other.repeats) == 2
    assert mail.unread == 0


def test_what_cannot_be_read_is_counted_and_the_rest_is_heard(one: Replica, other: Replica) -> None:
    b_is_refused(one)
    packed = Mail(one.hearsay).outgoing(2, one.clock())
    mail = Mail(other.hearsay)
    mail.came([(0.0, packed), (0.0, b"\xc1"), (0.0, b"\x93\x01\x02\x03")], one.clock(), one.clock())
    assert mail.unread == 2
    assert len(other.repeats) == 1
