from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.book import GRACE_S, GRACE_SHARE, LEAST_KEPT, Ticket
from proxy.core.tickets import CELL_S, HELD_STEPS, MOST_CELLS, SOLD_SHARE, SWEEP_FROM, Calendar, Line, Tickets
from proxy.core.verdict import LONGEST_RETRY_AFTER_S

NEVER = float("inf")


def booked(line: Line, earliest_s: float, step_s: float, now: float) -> Ticket:
    ticket = line.book(earliest_s, step_s, now)
    assert ticket is not None
    return ticket


def due(line: Line, earliest_s: float, step_s: float, now: float) -> float:
    return booked(line, earliest_s, step_s, now).due_at - now


def place(calendar: Calendar, caller: str = "ann", *, now: float = 100.0, **changed: float) -> Ticket | None:
    """A ticket from one second on, of a class that gets ten places a second."""
    asked = {"share": 1.0, "earliest_s": 1.0, "step_s": 0.1, "patience_s": NEVER, **changed}
    return calendar.book(caller, now=now, **asked)


def a_place(calendar: Calendar, caller: str = "ann", *, now: float = 100.0, **changed: float) -> Ticket:
    ticket = place(calendar, caller, now=now, **changed)
    assert ticket is not None
    return ticket


# ── a line: what refills by a clock ─────────────────────────────────────────────────────────────────


def test_the_first_is_told_when_there_is_room_and_each_next_a_step_later() -> None:
    line = Line()
    assert [due(line, 3.0, 3.0, now=100.0) for _ in range(3)] == [3.0, 6.0, 9.0]


def test_an_instant_that_has_passed_keeps_nobody_waiting() -> None:
    line = Line()
    booked(line, 3.0, 3.0, now=100.0)
    assert due(line, 1.0, 3.0, now=103.0) == 1.0


def test_two_are_told_different_instants_even_where_the_step_is_nothing() -> None:
    line = Line()
    assert due(line, 0.0, 0.0, now=5.0) < due(line, 0.0, 0.0, now=5.0)


def test_nothing_is_booked_beyond_what_can_be_told() -> None:
    line = Line()
    assert line.book(LONGEST_RETRY_AFTER_S + 0.1, 1.0, now=0.0) is None
    assert due(line, 50.0, 4.0, now=0.0) == 50.0, "who got nothing has moved nothing"
    assert due(line, 50.0, 4.0, now=0.0) == 54.0
    assert line.book(50.0, 4.0, now=0.0) is None


def test_what_is_due_is_kept_free_and_what_refills_until_the_next_is_due_is_not() -> None:
    line = Line()
    for _ in range(3):
        booked(line, 4.0, 2.0, now=100.0)  # due at 104, 106, 108
    assert line.kept_free_s(101.0, NEVER) == 0.0
    assert line.kept_free_s(103.5, NEVER) == 1.5
    assert line.kept_free_s(104.0, NEVER) == 2.0
    assert line.kept_free_s(104.4, NEVER) == pytest.approx(2.4)


def test_nothing_is_kept_from_those_who_came_before_the_ticket_was_sold() -> None:
    line = Line()
    booked(line, 1.0, 2.0, now=100.0).after = 7
    booked(line, 1.0, 2.0, now=100.5).after = 8
    assert line.kept_free_s(101.0, 7) == 0.0
    assert line.kept_free_s(101.0, 8) == 2.0
    assert line.kept_free_s(101.0, NEVER) == 2.0


# ── keeping it, or not ──────────────────────────────────────────────────────────────────────────────


def test_a_ticket_is_redeemed_once() -> None:
    line = Line()
    ticket = booked(line, 1.0, 1.0, now=0.0)
    assert ticket.redeem(1.0)
    assert not ticket.redeem(1.0)
    assert line.idle(1.0)
    assert line.kept_free_s(1.0, NEVER) == 0.0


@pytest.mark.parametrize(("earliest_s", "grace_s"), [(1.0, GRACE_S), (50.0, 50.0 * GRACE_SHARE)])
def test_who_comes_a_little_late_is_on_time_and_later_is_too_late(earliest_s: float, grace_s: float) -> None:
    for late_s, kept in ((grace_s, True), (grace_s + 0.01, False)):
        ticket = booked(Line(), earliest_s, 1.0, now=0.0)
        assert ticket.redeem(earliest_s + late_s) is kept


def test_who_comes_too_late_is_too_late_also_behind_one_who_is_still_awaited() -> None:
    calendar = Calendar()
    long = a_place(calendar, "ann", earliest_s=10.0)
    short = a_place(calendar, "bob")
    assert not short.redeem(short.until + 0.01)
    assert long.redeem(long.due_at)
    assert (calendar.out, calendar.kept < 1.0) == (0, True)


def test_the_place_of_who_does_not_come_is_given_up() -> None:
    line = Line()
    ticket = booked(line, 1.0, 1.0, now=0.0)
    lapses_at = ticket.due_at + HELD_STEPS
    assert line.lapses_at(0.0) == lapses_at
    assert line.kept_free_s(lapses_at - 0.01, NEVER) == 1.0
    assert line.kept_free_s(lapses_at, NEVER) == 0.0
    assert line.lapses_at(lapses_at) == NEVER
    assert not line.idle(ticket.until), "its holder may come still"
    assert line.idle(ticket.until + 0.01)


def test_what_has_ended_is_not_kept_where_nobody_asks_what_is_kept_free() -> None:
    """As in the lines of a breaker or a retry budget, which keep no room: once they grew for ever."""
    line = Line()
    for second in range(1000):
        line.book(1.0, 0.1, float(second))
    assert len(line._held) < 10


def test_what_was_promised_by_a_small_part_of_the_refill_is_little_once_the_part_is_large() -> None:
    line = Line()
    assert line.book(1.0, 0.5, now=0.0, part=0.01) is not None  # of 200 a second it had two
    assert line.kept_free_s(1.0, NEVER, part=0.01) == 0.5
    assert line.kept_free_s(1.0, NEVER, part=0.5) == pytest.approx(0.01), "one call, of a hundred a second"


def test_of_many_who_are_due_so_much_is_kept_free_as_they_are_likely_to_ask_for() -> None:
    line = Line()
    for _ in range(40):
        assert line.book(1.0, 0.001, now=0.0) is not None
    assert line.kept_free_s(1.04, NEVER) == pytest.approx(0.04)
    line.kept = 0.75
    assert line.kept_free_s(1.04, NEVER) == pytest.approx(0.03)
    assert line.kept_free_s(1.04, NEVER, burst_s=0.02) == pytest.approx(0.01), "the half of a burst"
    assert line.kept_free_s(1.04, NEVER, burst_s=0.001) == pytest.approx(0.001), "but one in any case"
    line.kept = 0.25
    assert line.kept_free_s(1.04, NEVER, burst_s=0.001) == 0.0, "where most do not come, not even that"


def test_a_ticket_that_is_given_back_was_neither_kept_nor_broken() -> None:
    line = Line()
    ticket = booked(line, 1.0, 1.0, now=0.0)
    ticket.give_back()
    ticket.give_back()
    assert (line.out, line.kept) == (0, 1.0)
    assert not ticket.redeem(1.0)
    line.expire(99.0)
    assert (line.out, line.kept) == (0, 1.0)


def test_where_few_return_more_is_sold_but_never_without_bound() -> None:
    line = Line()
    steps = []
    for now in range(0, 20_000, 100):
        first, second = (due(line, 1.0, 1.0, float(now)) for _ in range(2))
        steps.append(second - first)
    assert steps[0] == 1.0
    assert steps == sorted(steps, reverse=True), "the fewer come, the closer they are told"
    assert steps[-1] == pytest.approx(LEAST_KEPT)


def test_where_all_return_nothing_is_sold_twice() -> None:
    line = Line()
    for now in range(0, 20_000, 100):
        first, second = (booked(line, 1.0, 1.0, float(now)) for _ in range(2))
        assert second.due_at - first.due_at == pytest.approx(1.0)
        assert first.redeem(first.due_at)
        assert second.redeem(second.due_at)


# ── a calendar: what comes free when somebody ends ──────────────────────────────────────────────────


def test_a_share_of_what_a_class_gets_is_sold_evenly_in_time() -> None:
    calendar = Calendar()
    due_at = [a_place(calendar, f"c{number}").due_at for number in range(16)]
    assert due_at[0] == 101.0
    assert len(set(due_at)) == 16
    per_place_s = (max(due_at) - 101.0) / 15
    assert per_place_s == pytest.approx(0.1 / SOLD_SHARE, rel=0.1)


def test_whoever_asks_for_a_later_time_leaves_the_earlier_places() -> None:
    calendar = Calendar()
    assert a_place(calendar, "ann", earliest_s=5.0).due_at == 105.0
    assert a_place(calendar, "bob").due_at == 101.0
    assert a_place(calendar, "cy", earliest_s=5.0).due_at > 105.0


def test_a_loud_caller_is_told_at_its_own_pace_and_leaves_the_rest_to_others() -> None:
    calendar = Calendar()
    loud = [place(calendar, "loud", share=0.1) for _ in range(1000)]
    sold = [ticket.due_at for ticket in loud if ticket is not None]
    assert len(sold) > 1
    for one, next_one in itertools.pairwise(sold):
        assert next_one - one >= 0.1 / SOLD_SHARE / 0.1 - 1e-6
    assert a_place(calendar, "quiet", share=0.1).due_at < sold[1]


def test_one_place_that_takes_longer_than_a_cell_is_sold_once_in_that_time() -> None:
    calendar = Calendar()
    told = [a_place(calendar, f"c{number}", step_s=1.0).due_at for number in range(4)]
    gaps = [later - one for one, later in itertools.pairwise(told)]
    assert gaps == pytest.approx([1.0 / SOLD_SHARE] * 3, abs=CELL_S)


def test_a_place_that_takes_an_hour_costs_no_more_to_book() -> None:
    calendar = Calendar()
    a_place(calendar, step_s=3600.0)
    assert len(calendar._filled) <= MOST_CELLS + 2
    assert place(calendar, "bob", step_s=3600.0) is None


def test_nothing_is_sold_beyond_what_can_be_told_or_the_callers_own_patience() -> None:
    calendar = Calendar()
    assert place(calendar, earliest_s=LONGEST_RETRY_AFTER_S + 0.01) is None
    assert place(calendar, patience_s=0.99) is None
    assert a_place(calendar, patience_s=1.0).due_at == 101.0
    for number in range(1000):
        if (ticket := place(calendar, f"c{number}", patience_s=3.05)) is not None:
            assert ticket.due_at <= 103.05 + 1e-6
    assert place(calendar, "late", patience_s=3.05) is None
    assert a_place(calendar, "patient").due_at > 103.0


def test_waits_that_nobody_keeps_are_not_sold_any_more() -> None:
    calendar = Calendar()
    for number in range(200):
        place(calendar, f"c{number}", now=number * 100.0, earliest_s=30.0)
    sold = [place(calendar, f"d{number}", now=2e4, earliest_s=30.0) for number in range(20)]
    assert sum(ticket is not None for ticket in sold) < 5
    assert place(calendar, "short", now=2e4) is not None, "of those nothing bad is known"


def test_whether_they_are_kept_is_learnt_in_the_order_in_which_they_were_sold() -> None:
    calendar = Calendar()
    sold = [a_place(calendar, f"c{number}", step_s=0.001) for number in range(400)]
    patience = calendar._patience
    for number, ticket in sorted(enumerate(sold), key=lambda each: each[1].due_at):
        if number % 2:
            assert ticket.redeem(ticket.due_at)
        if patience._ended[0] >= 2:
            assert 0.3 < patience._kept[0] < 0.7, "who comes is seen before who does not"
    calendar.expire(200.0)
    assert (calendar.out, patience._ended[0]) == (0, 400)
    assert 0.3 < patience._kept[0] < 0.7


def test_a_long_wait_does_not_hide_that_short_ones_are_not_kept() -> None:
    calendar = Calendar()
    long = a_place(calendar, "far", earliest_s=50.0)
    short = a_place(calendar, "near")
    calendar.expire(short.until + 0.1)
    assert (long.is_open, short.is_kept, calendar.out) == (True, False, 1)


def test_who_was_told_a_time_far_off_is_told_a_near_one_once_there_is_room() -> None:
    calendar = Calendar()
    a_place(calendar, share=0.1, earliest_s=30.0)
    assert a_place(calendar, share=0.1).due_at == pytest.approx(101.0 + 0.1 / SOLD_SHARE / 0.1)


def test_a_ticket_that_was_given_back_is_not_awaited() -> None:
    calendar = Calendar()
    for number in range(200):
        a_place(calendar, f"c{number}", now=number * 100.0, earliest_s=30.0).give_back()
    assert (calendar.out, sum(calendar._patience._out)) == (0, 0)


def test_a_calendar_forgets_what_has_passed() -> None:
    calendar = Calendar()
    for number in range(20 * SWEEP_FROM):
        place(calendar, f"c{number}", now=number / 10, step_s=0.01)
    assert len(calendar._filled) <= 2 * MOST_CELLS
    assert len(calendar._paces) <= 2 * SWEEP_FROM
    assert sum(map(len, calendar._rows.values())) <= SWEEP_FROM


# ── all of them ─────────────────────────────────────────────────────────────────────────────────────


def test_scopes_do_not_wait_for_each_other() -> None:
    tickets = Tickets()
    assert not tickets.has_lines
    booked(tickets.line("caller:ann", 100.0), 3.0, 3.0, now=100.0)
    assert due(tickets.line("caller:bob", 100.0), 3.0, 3.0, now=100.0) == 3.0
    assert due(tickets.line("caller:ann", 100.0), 3.0, 3.0, now=100.0) == 6.0
    assert tickets.line_of("caller:cy") is None
    assert tickets.has_lines
    a_place(tickets.calendar("upstream:api/0", 100.0), step_s=9.0)
    assert a_place(tickets.calendar("upstream:api/1", 100.0), step_s=9.0).due_at == 101.0


def test_scopes_whose_tickets_have_ended_are_forgotten() -> None:
    tickets = Tickets()
    for number in range(20 * SWEEP_FROM):
        now = number / 100
        booked(tickets.line(f"caller:{number}", now), 1.0, 0.0, now)
        a_place(tickets.calendar(f"tool:{number}/0", now), now=now)
    assert len(tickets._lines) <= 2 * SWEEP_FROM
    assert len(tickets._calendars) <= 2 * SWEEP_FROM


@given(
    bookings=st.lists(
        st.tuples(
            st.floats(0.0, 80.0),
            st.floats(0.0, 30.0),
            st.sampled_from((0.0, 0.0, 0.3, 20.0)),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_a_line_tells_nobody_less_than_it_takes_or_what_another_was_told(
    bookings: list[tuple[float, float, float, bool]],
) -> None:
    line, now, told = Line(), 1000.0, set()
    for earliest_s, step_s, passed_s, comes in bookings:
        now += passed_s
        ticket = line.book(earliest_s, step_s, now)
        if ticket is None:
            continue
        assert earliest_s - 1e-6 <= ticket.due_at - now <= LONGEST_RETRY_AFTER_S
        assert ticket.due_at not in told
        told.add(ticket.due_at)
        if comes:
            now = max(now, ticket.due_at)
            assert ticket.redeem(now)
    assert line.out >= 0


@given(
    bookings=st.lists(
        st.tuples(
            st.sampled_from(("ann", "bob", "cy")),
            st.floats(0.0, 70.0),
            st.sampled_from((0.001, 0.1, 2.5, 40.0, 9000.0)),
            st.sampled_from((NEVER, NEVER, 4.0)),
            st.sampled_from((0.0, 0.0, 0.3, 20.0)),
        ),
        max_size=60,
    )
)
def test_a_calendar_sells_nothing_too_early_too_late_or_beyond_what_there_is(
    bookings: list[tuple[str, float, float, float, float]],
) -> None:
    calendar, now = Calendar(), 1000.0
    for caller, earliest_s, step_s, patience_s, passed_s in bookings:
        now += passed_s
        ticket = calendar.book(caller, 0.5, earliest_s, step_s, patience_s, now)
        if ticket is not None:
            assert earliest_s - 1e-6 <= ticket.due_at - now <= min(LONGEST_RETRY_AFTER_S, patience_s) + 1e-6
        assert calendar.out == sum(each.is_open for row in calendar._rows.values() for each in row)
