from __future__ import annotations

import math
import statistics

import pytest

from proxy.demo import Behaviour, Brownout, DemoUpstream, Hang, Ok, Outage


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("slots", 0),
        ("slots", 1.5),
        ("slots", "8"),
        ("latency_s", -0.1),
        ("latency_s", math.inf),
        ("latency_s", math.nan),
        ("sigma", -1),
        ("knee", 0),
        ("stream_events", -1),
        ("mode", "hang"),
        ("mode", Brownout(share=7)),
        ("mode", Outage(answer="404")),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name_and_changes_nothing(field, value):
    with pytest.raises(ValueError, match=field):
        Behaviour(**{field: value})
    behaviour = Behaviour()
    before = getattr(behaviour, field)
    with pytest.raises(ValueError, match=field):
        setattr(behaviour, field, value)
    assert getattr(behaviour, field) == before


def test_a_misspelt_field_is_refused():
    with pytest.raises(ValueError, match="no field is called 'slot'; there are: slots, latency_s"):
        Behaviour().slot = 3


def test_those_who_watch_are_told_of_each_change():
    behaviour, told = Behaviour(), []
    behaviour.watch(lambda: told.append((behaviour.slots, behaviour.mode)))
    behaviour.slots = 2
    behaviour.mode = Hang()
    assert told == [(2, Ok()), (2, Hang())]


@pytest.mark.parametrize(("in_flight", "throughput"), [(16, 0.5), (32, 1.0), (64, 0.6), (128, 0.25)])
def test_congestion_beyond_the_knee_costs_throughput_as_in_the_benchmarks_model(in_flight, throughput):
    behaviour = Behaviour(knee=32)
    assert in_flight / 32 / behaviour.congestion(in_flight) == pytest.approx(throughput)
    assert Behaviour(knee=8).congestion(in_flight // 4) == behaviour.congestion(in_flight)


def test_without_a_knee_there_is_no_congestion():
    assert Behaviour().congestion(100_000) == 1.0


@pytest.mark.parametrize(("factor", "slots"), [(0.3, 2), (1, 8), (0, 1)])
def test_a_brownout_leaves_its_share_of_the_slots_and_at_least_one(factor, slots):
    assert Behaviour(slots=8, mode=Brownout(factor=factor)).served_at_once() == slots


def test_latency_is_lognormal_about_its_median_and_the_same_for_the_same_seed():
    def drawn(seed: int) -> list[float]:
        upstream = DemoUpstream(Behaviour(sigma=0.5, seed=seed))
        return [upstream._luck() for _ in range(4001)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 0.95 < statistics.median(drawn(1)) < 1.05
    assert 0.45 < statistics.stdev(math.log(each) for each in drawn(1)) < 0.55
    assert DemoUpstream(Behaviour(sigma=0))._luck() == 1.0
