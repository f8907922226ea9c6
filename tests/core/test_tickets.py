from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.tickets import SWEEP_FROM, Line
from proxy.core.verdict import LONGEST_RETRY_AFTER_S


def test_the_first_is_told_when_there_is_room() -> None:
    assert Line().book("caller:ann", 3.0, 3.0, now=100.0) == 3.0


def test_each_next_is_told_one_step_later() -> None:
    line = Line()
    told = [line.book("caller:ann", 3.0, 3.0, now=100.0) for _ in range(3)]
    assert told == [3.0, 6.0, 9.0]


def test_scopes_do_not_wait_for_each_other() -> None:
    line = Line()
    line.book("caller:ann", 3.0, 3.0, now=100.0)
    assert line.book("caller:bob", 3.0, 3.0, now=100.0) == 3.0


def test_an_instant_that_has_passed_keeps_nobody_waiting() -> None:
    line = Line()
    line.book("caller:ann", 3.0, 3.0, now=100.0)
    assert line.book("caller:ann", 1.0, 3.0, now=103.0) == 1.0


def test_two_are_told_different_instants_even_where_the_step_is_nothing() -> None:
    line = Line()
    assert line.book("upstream:api", 0.0, 0.0, now=5.0) < line.book("upstream:api", 0.0, 0.0, now=5.0)


def test_what_is_too_long_to_tell_is_told_as_nearly_55_seconds_to_each_another() -> None:
    line = Line()
    told = [line.book("caller:ann", 3600.0, 0.0, now=0.0) for _ in range(50)]
    assert len(set(told)) == 50
    assert all(45.0 <= each <= LONGEST_RETRY_AFTER_S for each in told)


def test_whose_own_time_can_be_told_is_not_told_less_when_the_line_is_too_long() -> None:
    line = Line()
    told = [line.book("caller:ann", 50.0, 4.0, now=0.0) for _ in range(20)]
    assert len(set(told)) == 20
    assert all(50.0 <= each <= LONGEST_RETRY_AFTER_S for each in told)


def test_the_line_forgets_scopes_whose_instants_have_passed() -> None:
    line = Line()
    for number in range(20 * SWEEP_FROM):
        line.book(f"caller:{number}", 1.0, 0.0, now=number / 100)
    assert len(line._last) <= SWEEP_FROM + 1


@given(
    bookings=st.lists(
        st.tuples(
            st.sampled_from(("route:a", "route:b")),
            st.floats(0.0, 80.0),
            st.floats(0.0, 30.0),
            st.sampled_from((0.0, 0.0, 0.3, 20.0)),
        ),
        max_size=60,
    )
)
def test_nobody_is_told_less_than_it_takes_more_than_55s_or_what_another_was_told(
    bookings: list[tuple[str, float, float, float]],
) -> None:
    line, now, told_now = Line(), 1000.0, set()
    for scope, earliest_s, step_s, passed_s in bookings:
        if passed_s:
            now, told_now = now + passed_s, set()
        told = line.book(scope, earliest_s, step_s, now)
        assert 0.0 <= told <= LONGEST_RETRY_AFTER_S
        assert told >= min(earliest_s, 45.0) - 1e-6
        assert (scope, told) not in told_now
        told_now.add((scope, told))
