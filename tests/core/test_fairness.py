from __future__ import annotations

from proxy.core.fairness import MOST, RECENT_S, SWEEP_FROM, Shares


def turns(shares: Shares, callers: dict[str, float], count: int) -> dict[str, int]:
    """How often each is served, if all of them always wait; `callers` with their weights."""
    had = dict.fromkeys(callers, 0)
    for _ in range(count):
        caller = min(callers, key=shares.start)
        had[caller] += 1
        shares.charge(caller, 1.0 / callers[caller], 0.0, in_turn=True)
    return had


def test_whoever_has_had_least_is_next() -> None:
    shares = Shares()
    shares.charge("ann", 1.0, 0.0, in_turn=True)
    assert shares.start("bob") < shares.start("ann")
    assert (shares.ahead("bob"), shares.ahead("ann")) == (0.0, 1.0)


def test_callers_are_served_by_their_weights() -> None:
    assert turns(Shares(), {"ann": 1.0, "bob": 1.0, "heavy": 3.0}, 500) == {
        "ann": 100,
        "bob": 100,
        "heavy": 300,
    }


def test_whoever_returns_after_a_pause_has_no_arrears_to_catch_up() -> None:
    shares = Shares()
    turns(shares, {"ann": 1.0, "idle": 1.0}, 10)
    turns(shares, {"ann": 1.0}, 100)
    assert shares.start("idle") >= shares.start("ann") - 1.0
    assert turns(shares, {"ann": 1.0, "idle": 1.0}, 100) in (
        {"ann": 50, "idle": 50},
        {"ann": 49, "idle": 51},
    )


def test_who_went_before_its_turn_pays_by_waiting_and_lifts_nobody() -> None:
    shares = Shares()
    for _ in range(5):
        shares.charge("booked", 1.0, 0.0, in_turn=False)
    assert (shares.floor, shares.ahead("booked")) == (0.0, 5.0)
    assert turns(shares, {"booked": 1.0, "other": 1.0}, 7) == {"booked": 1, "other": 6}


def test_what_a_call_truly_cost_moves_its_callers_turn() -> None:
    shares = Shares()
    for caller in ("slow", "fast"):
        shares.charge(caller, 1.0, 0.0, in_turn=True)
    shares.correct("slow", 4.0)
    shares.correct("fast", -0.5)
    assert (shares.start("slow"), shares.start("fast")) == (5.0, 0.5)
    shares.correct("unknown", 3.0)
    assert shares.start("unknown") == 0.0


def test_who_has_had_no_more_than_those_whose_turn_it_is_need_not_be_remembered() -> None:
    shares = Shares()
    for round_of in range(100):
        for number in range(100):
            shares.charge(f"{round_of % 20} {number}", 1.0, 0.0, in_turn=True)
    assert len(shares) <= 2 * SWEEP_FROM


def test_a_stream_of_callers_who_each_call_once_is_remembered_up_to_a_bound() -> None:
    shares = Shares()
    for number in range(3 * MOST):
        shares.charge(str(number), 1.0, number / 100, in_turn=True)
        assert len(shares) <= MOST + 1
    assert shares.ahead(str(3 * MOST - 1)) == 1.0, "the last are remembered"
    assert shares.ahead("0") == 0.0, "the first are lifted"


def test_who_called_again_is_remembered_before_who_did_not() -> None:
    shares = Shares()
    for number in range(MOST + 2):
        shares.charge(str(number), 1.0, 0.0, in_turn=False)
        if number % 1000 == 0:
            shares.charge("regular", 1.0, 0.0, in_turn=False)
    assert shares.ahead("regular") > 60.0


def test_how_many_share_is_counted_over_the_last_seconds() -> None:
    shares = Shares()
    assert shares.callers == 1
    for caller in ("ann", "bob", "cy"):
        shares.charge(caller, 1.0, 100.0, in_turn=True)
    assert shares.callers == 3
    shares.charge("ann", 1.0, 100.0 + RECENT_S, in_turn=True)
    assert shares.callers == 3, "the others called a moment ago"
    shares.charge("ann", 1.0, 100.0 + 2 * RECENT_S, in_turn=True)
    assert shares.callers == 1
