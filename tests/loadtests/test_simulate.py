"""OB-1 on the virtual clock: its models, its books, and a small slice of it that the core must keep to."""

from __future__ import annotations

import json
from random import Random

import pytest

from loadtests.simulate import goals, report
from loadtests.simulate.__main__ import main
from loadtests.simulate.arrivals import TOKENS_IN, TOKENS_OUT
from loadtests.simulate.callers import BEHAVIOURS, JITTER, NONE, RUDE, SDK, Behaviour, Callers, back_off_s
from loadtests.simulate.calls import CANCELLED, EXPIRED, GOOD, Attempt, Logical
from loadtests.simulate.clock import Timeline, chance
from loadtests.simulate.door import GateDoor
from loadtests.simulate.fairness import jain, max_min
from loadtests.simulate.goals import ROWS
from loadtests.simulate.grid import tasks_of
from loadtests.simulate.honesty import honesty
from loadtests.simulate.ledger import Ledger, VoidRunError
from loadtests.simulate.metrics import figures, useful_attempts, work_by_bin
from loadtests.simulate.playing import BEST_TOKENS_PER_S, Played, named, play
from loadtests.simulate.scenarios import SCENARIOS, Fault, Phase, Scenario
from loadtests.simulate.streams import Allowance, Streams
from loadtests.simulate.upstreams import Fixed, Knee, Upstream
from proxy.core.book import Ticket
from proxy.core.verdict import Refusal

PLENTY = (1e9, 1e9, 1e9)


def overload(factor: float = 3.0, upstream: str = "u1", seconds: float = 6.0, **more: object) -> Scenario:
    """Seconds of overload, measured after the first two."""
    phases = (Phase(1.0, 0.5), Phase(seconds, factor))
    return Scenario(f"{upstream}-{factor:g}", upstream, phases, (2.0, 1.0 + seconds), **more)  # type: ignore[arg-type]


def played(scenario: Scenario, variant: str = "told", seed: int = 1) -> Played:
    return play(scenario, variant, seed)


class Bench:
    """An upstream alone: a call is sent for each that is answered, so that always so many are there."""

    def __init__(self, kind: type[Upstream], at_once: int, **more: object) -> None:
        self.timeline, self.ledger = Timeline(), Ledger()
        self.upstream = kind(self.timeline, self.ledger, chance(1, "upstream"), **more)
        self.upstream.asker = self
        self.luck = chance(1, "work")
        self.at_once = at_once
        self.until = 0.0
        self.answers: list[tuple[Attempt, int, float | None]] = []
        self.firsts: list[Attempt] = []

    def first_byte(self, attempt: Attempt) -> None:
        self.firsts.append(attempt)

    def answered(self, attempt: Attempt, status: int, told_s: float | None) -> None:
        self.answers.append((attempt, status, told_s))
        if self.timeline.now < self.until:
            self.send()

    def send(self, work_s: float = 0.0) -> Attempt:
        call = Logical(self.timeline.now, 0, 0, SDK, float("inf"))
        call.work_s = work_s or self.luck.lognormvariate(-2.4276, 0.5)
        call.tokens_in = self.luck.lognormvariate(*TOKENS_IN)
        call.tokens_out = min(self.luck.lognormvariate(*TOKENS_OUT), 16_000.0)
        attempt = Attempt(call, None, self.timeline.now)
        self.upstream.send(attempt)
        return attempt

    def run(self, seconds: float = 0.0) -> float:
        """Calls done in a second."""
        self.until = seconds
        for _ in range(self.at_once):
            self.send()
        self.timeline.run()
        return len(self.answers) / self.timeline.now


# ── the models ──────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_planned_for_one_instant_happens_in_the_order_of_planning() -> None:
    timeline, seen = Timeline(), []
    for name in "abc":
        timeline.plan(1.0, seen.append, name)
    timeline.plan(0.5, lambda _: timeline.plan(0.0, seen.append, "past is now"))
    timeline.run()
    assert seen == ["past is now", "a", "b", "c"]


def test_u1_does_320_a_second_however_many_there_are() -> None:
    assert Bench(Fixed, 32).run(60.0) == pytest.approx(320, rel=0.03)
    assert Bench(Fixed, 64).run(60.0) == pytest.approx(320, rel=0.03)


@pytest.mark.parametrize(("at_once", "share"), [(32, 1.0), (64, 0.6), (128, 0.25)])
def test_u2_is_best_at_its_knee_and_collapses_past_it(at_once: int, share: float) -> None:
    assert Bench(Knee, at_once).run(60.0) == pytest.approx(320 * share, rel=0.05)


def test_u3_at_its_best_does_the_tokens_that_goodput_is_measured_by() -> None:
    bench = Bench(Streams, 64, limits=PLENTY)
    bench.run(4000.0)
    tokens = sum(attempt.call.tokens_out for attempt, _, _ in bench.answers if attempt.ended_at < 4000.0)
    assert tokens / 4000.0 == pytest.approx(BEST_TOKENS_PER_S, rel=0.03)
    assert len(bench.firsts) == len(bench.answers)


def test_u3_tells_when_the_providers_limit_lets_a_call_in_and_the_time_is_true() -> None:
    allowance = Allowance(2.0)
    for _ in range(21):
        assert allowance.wait_s(0.0) == 0.0
        allowance.spend(1.0, 0.0)
    assert allowance.wait_s(0.0) == pytest.approx(0.5)
    assert allowance.wait_s(0.5) == 0.0


def test_u3_may_count_what_it_refuses_but_makes_no_debt_of_it() -> None:
    allowance = Allowance(2.0)
    for _ in range(21):
        allowance.spend(1.0, 0.0)
    for _ in range(50):
        allowance.use_up(0.0)
    assert allowance.wait_s(0.0) == pytest.approx(0.5)
    allowance.use_up(0.4)  # and who asks again too early is not let in at the time told
    assert allowance.wait_s(0.5) == pytest.approx(0.4)


@pytest.mark.parametrize(("counts_failed", "status"), [(False, 529), (True, 429)])
def test_u3_has_a_mode_in_which_a_refused_call_spends_what_refills(counts_failed: bool, status: int) -> None:
    bench = Bench(Streams, 161, limits=(16.0, 1e9, 1e9), counts_failed=counts_failed)
    late: list[Attempt] = []
    bench.timeline.plan(0.030, lambda _: bench.send())
    bench.timeline.plan(0.064, lambda _: late.append(bench.send()))
    bench.run()
    assert [said for attempt, said, _ in bench.answers if attempt is late[0]] == [status]


def test_u3_refuses_what_its_limits_do_not_cover_and_what_its_line_does_not_hold() -> None:
    bench = Bench(Streams, 300, limits=(16.0, 1e9, 1e9))
    bench.run()
    statuses = [status for _, status, _ in bench.answers]
    assert statuses.count(529) == 161 - 128  # ten seconds of it and the one that overdraws; 128 have room
    assert statuses.count(429) == 300 - 161
    assert all(told_s for _, status, told_s in bench.answers if status == 429)


def test_an_outage_refuses_half_and_hangs_half_until_its_end() -> None:
    bench = Bench(Fixed, 100)
    bench.timeline.plan(30.0, lambda _: bench.upstream.come_up())
    bench.upstream.go_down()
    bench.run()
    ended = [attempt.ended_at for attempt, status, _ in bench.answers if status == 0]
    assert len(ended) == 100
    assert 30 < sum(at == 30.0 for at in ended) < 70
    assert sum(at < 0.1 for at in ended) == 100 - sum(at == 30.0 for at in ended)


def test_a_deaf_upstream_works_on_for_whoever_left_and_says_so_in_the_ledger() -> None:
    for deaf, worked_s in ((False, 0.5), (True, 2.0)):
        bench = Bench(Fixed, 0)
        bench.upstream.is_deaf = deaf
        left = bench.send(work_s=2.0)
        bench.timeline.plan(0.5, bench.upstream.leave, left)
        bench.timeline.run()
        assert left.call.slot_s == pytest.approx(worked_s)
        assert bench.answers == []


@pytest.mark.parametrize("kind", [Fixed, Knee, Streams])
def test_who_leaves_frees_what_it_held(kind: type[Upstream]) -> None:
    more = {"limits": PLENTY} if kind is Streams else {}
    bench = Bench(kind, 0, **more)
    sent = [bench.send() for _ in range(100)]
    for number, attempt in enumerate(sent[::2]):
        bench.timeline.plan(0.02 * number, bench.upstream.leave, attempt)
    bench.timeline.run()
    assert all(attempt.is_over for attempt in sent)
    assert bench.upstream.here == 0
    assert {id(attempt) for attempt, _, _ in bench.answers} >= {id(attempt) for attempt in sent[1::2]}


@pytest.mark.parametrize(("kind", "slots"), [(Fixed, 32), (Streams, 64)])
def test_who_leaves_lets_the_next_in_line_begin(kind: type[Upstream], slots: int) -> None:
    more = {"limits": PLENTY} if kind is Streams else {}
    bench = Bench(kind, 0, **more)
    sent = [bench.send(work_s=1.0) for _ in range(slots + 1)]
    bench.timeline.plan(0.5, bench.upstream.leave, sent[0])
    bench.timeline.run()
    assert [attempt.begun_at for attempt in sent] == [0.0] * slots + [0.5]


# ── the clients (reference/clients.md) ──────────────────────────────────────────────────────────────────


class Shut:
    """A door behind which nothing happens."""

    def enter(self, call: Logical) -> None: ...
    def leave(self, call: Logical) -> None: ...


def wait(
    behaviour: Behaviour, retry: int, told_s: float | None = None, *, may_return: bool = True
) -> float | None:
    return back_off_s(behaviour, retry, told_s, may_return=may_return, luck=Random(1))


def test_an_sdk_takes_the_time_told_to_the_millisecond_twice_and_no_more_than_a_minute() -> None:
    assert wait(SDK, 0, 1.234) == 1.234
    assert wait(SDK, 1, 55.0) == 55.0
    assert wait(SDK, 2, 1.0) is None
    for retry, most in ((0, 0.5), (1, 1.0)):
        own = wait(SDK, retry, 61.0)
        assert own is not None
        assert 0.75 * most <= own <= most
    assert wait(SDK, 0, 5.0, may_return=False) is None


def test_rude_clients_read_nothing_and_some_never_come_back() -> None:
    assert [wait(RUDE, retry, 30.0, may_return=False) for retry in range(6)] == [0.005] * 5 + [None]
    assert wait(NONE, 0) is None
    jittered = wait(JITTER, 1, 30.0, may_return=False)
    assert jittered is not None
    assert 0.0 <= jittered <= 1.0
    assert sum(behaviour.share for behaviour in BEHAVIOURS) == pytest.approx(1.0)


def test_who_reads_a_stream_reads_on_and_whose_stream_broke_off_runs_out_of_time() -> None:
    timeline, ledger = Timeline(), Ledger()
    callers = Callers(timeline, ledger, chance(1, "back-off"), streams=True)
    callers.door = Shut()
    reads, broken = Logical(0.0, 0, 0, SDK, 2.0), Logical(0.0, 0, 0, SDK, 2.0)
    for call in (reads, broken):
        callers.begin(call)
        timeline.plan(1.0, callers.first_byte, call)
    timeline.plan(1.5, lambda _: callers.answered(broken, 500, None, may_return=True, ours=False))
    timeline.plan(9.0, lambda _: callers.answered(reads, 200, None, may_return=True, ours=False))
    timeline.run()
    assert (reads.end, reads.ended_at) == (GOOD, 9.0)
    assert (broken.end, broken.ended_at) == (EXPIRED, 2.0)


# ── the books ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_seed_gives_the_same_figures_and_another_seed_others() -> None:
    scenario = overload(seconds=1.5)
    first = json.dumps(figures(played(scenario)))
    assert json.dumps(figures(played(scenario))) == first
    assert json.dumps(figures(played(scenario, seed=2))) != first


def test_every_variant_is_asked_for_the_same_calls() -> None:
    def asked(variant: str) -> list[object]:
        calls = played(overload(seconds=2.0), variant).ledger.calls
        return [
            (call.at, call.rank, call.tenant, call.work_s, call.behaviour, call.deadline) for call in calls
        ]

    assert asked("told") == asked("default") == asked("direct")


def test_a_run_whose_books_do_not_balance_is_void() -> None:
    ledger = Ledger()
    call = Logical(1.0, 0, 0, SDK, 11.0)
    ledger.calls.append(call)
    with pytest.raises(VoidRunError, match="never ended"):
        ledger.check()
    call.end = GOOD
    ledger.check()
    call.attempts = 1
    with pytest.raises(VoidRunError, match="other attempts"):
        ledger.check()


def test_a_grant_above_the_cap_voids_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GateDoor, "cap", property(lambda _: 31))
    with pytest.raises(VoidRunError, match="under a cap of 31"):
        played(overload(seconds=2.0))


@pytest.mark.parametrize("name", ["F1", "F2", "F5"])
def test_whatever_is_wrong_every_call_ends_once_and_nothing_is_held(name: str) -> None:
    faults = (Fault(name, 2.0, 3.0),)
    for variant in ("default", "told"):
        ledger = played(overload(2.0, seconds=4.0, faults=faults), variant).ledger  # which checks itself
        assert {call.end for call in ledger.calls} >= {GOOD}


@pytest.mark.parametrize("name", ["F3", "F4"])
def test_streams_end_too_whatever_is_wrong(name: str) -> None:
    scenario = overload(2.0, "u3", seconds=60.0, faults=(Fault(name, 10.0, 40.0),), limits=1.2)
    for variant in ("default", "told"):
        assert figures(played(scenario, variant))["good_per_s"] > 0


def test_work_is_spread_over_the_time_it_took_and_none_is_lost() -> None:
    run = played(overload(0.8, seconds=4.0))
    useful = useful_attempts(run)
    assert sum(work_by_bin(run, useful)) == pytest.approx(sum(attempt.call.work_s for attempt in useful))


def test_a_caller_that_leaves_at_its_deadline_wastes_what_was_done_for_it() -> None:
    run = played(overload(3.0, "u2", seconds=12.0, only_class=0), "direct")
    found = figures(run)
    assert CANCELLED in found["critical_ends"]
    assert found["wasted_work"] > 0.5
    assert found["goodput"] < 0.5


# ── the figures ─────────────────────────────────────────────────────────────────────────────────────────


def test_jain_and_the_entitlements_it_is_taken_over() -> None:
    assert jain([1.0, 1.0, 1.0]) == pytest.approx(1.0)
    assert jain([1.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert max_min([100.0, 1.0, 2.0], 9.0) == pytest.approx([6.0, 1.0, 2.0])
    assert max_min([5.0, 5.0, 5.0], 9.0) == pytest.approx([3.0, 3.0, 3.0])
    assert max_min([1.0, 1.0], 9.0) == pytest.approx([1.0, 1.0])


def test_a_promise_is_kept_by_letting_in_soon_after_the_return() -> None:
    ledger = Ledger()
    ledger.returns = [(0.0, 20.0, 20.0, waited, 1) for waited in (0.0, 1.9, 2.1, -1.0)]
    ledger.promises = [(0.0, 20.0 + number / 10) for number in range(100)]
    found = honesty(ledger, (20.0, 30.0), 32, 30.0)
    assert found["kept"] == 0.5
    assert found["kept_at_once"] == 0.25
    assert found["herd"] == pytest.approx(1.0, abs=1.01)
    assert found["regret"] == pytest.approx(1.0)  # nobody was served meanwhile: each could have been


def test_what_was_promised_before_a_fault_is_told_apart_from_what_was_promised_in_it() -> None:
    ledger = Ledger()
    ledger.returns = [(5.0, 20.0, 25.0, -1.0, 1), (12.0, 10.0, 22.0, 0.0, 1), (13.0, 10.0, 23.0, -1.0, 1)]
    found = honesty(ledger, (20.0, 30.0), 32, 30.0, 12.0)
    assert found["kept"] == pytest.approx(1 / 3)
    assert found["kept_told_since"] == 0.5


def test_a_herd_is_compared_with_that_of_the_same_returns_told_evenly() -> None:
    ledger = Ledger()
    ledger.promises = [(0.0, 20.0 + number / 100) for number in range(20)]  # ten in a tenth, and then none
    ledger.returns = [(0.0, 20.0, due, 0.0, 1) for _, due in ledger.promises[:10]]
    found = honesty(ledger, (20.0, 21.0), 32, 21.0)
    assert found["herd"] == pytest.approx(5.0)
    assert found["herd_returned"] == pytest.approx(10.0)
    assert found["herd_least"] == pytest.approx(2.0), "the half of them would return, two in a tenth"


def test_who_asks_too_early_and_is_told_the_same_again_is_promised_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Ticket] = []
    refuse = GateDoor._refuse

    def noted(self: GateDoor, call: Logical, refusal: Refusal) -> None:
        if refusal.ticket is not None:
            told.append(refusal.ticket)
        refuse(self, call, refusal)

    monkeypatch.setattr(GateDoor, "_refuse", noted)
    run = played(overload(3.0, seconds=6.0))
    assert len(run.ledger.promises) == len(set(told))
    assert len(told) > 1.5 * len(set(told))


def test_a_missed_goal_is_printed_as_missed_and_what_never_came_meets_none() -> None:
    row = goals.Row("G", "goodput", "u1@2", "told", lambda _: 0.0, 0.98, floor=0.9)
    lines = [
        report.judged(row, values) for values in ([0.99, 0.97, 0.99], [0.95, 0.95, 0.99], [float("nan")] * 3)
    ]
    assert [line["verdict"] for line in lines] == ["met", "MISSED", "MISSED"]
    assert [line["floor_verdict"] for line in lines] == ["met", "met", "MISSED"]
    assert "MISSED" in report.render(lines, 3)


def test_one_seed_that_fails_misses_a_goal_of_all_seeds() -> None:
    row = goals.Row("MS", "back", "trigger", "told", lambda _: 0.0, 0.95, share_of_seeds=True)
    assert report.judged(row, [1.0, 0.96])["verdict"] == "met"
    assert report.judged(row, [1.0, 0.5])["verdict"] == "MISSED"


def test_every_row_is_about_a_run_that_is_played() -> None:
    played_runs = {
        (scenario.name, variant) for scenario in SCENARIOS.values() for variant in scenario.variants
    }
    assert {(row.scenario, row.variant) for row in ROWS} <= played_runs
    assert {row.metric for row in ROWS} == {"G", "CS", "LR", "RA", "WW", "J", "TR", "MS", "HR", "LT", "AL"}


def test_the_program_prints_the_table_and_writes_what_it_found(tmp_path, capsys) -> None:
    main(["--only", "u3@0.5", "--seeds", "1", "--jobs", "1", "--results", str(tmp_path)])
    assert "p99 added at 0.5x" in capsys.readouterr().out
    (file,) = tmp_path.glob("simulate-*.json")
    assert json.loads(file.read_text())["runs"]["u3@0.5/told/1"]["goodput"] > 0.9
    assert main(["--only", "nothing", "--results", str(tmp_path)]) == 2


def test_the_first_seed_is_played_whole_before_the_second() -> None:
    seeds = [seed for _, _, seed in tasks_of(["u1@*"], 3)]
    assert seeds == sorted(seeds)


# ── the core: floors that must hold, raised as it improves ──────────────────────────────────────────────


@pytest.mark.parametrize("upstream", ["u1", "u2"])
def test_told_the_capacity_it_loses_none_of_it_at_five_times_the_load(upstream: str) -> None:
    found = figures(played(overload(5.0, upstream, seconds=5.0)))
    assert found["goodput"] > 0.95
    assert found["critical_success"] == 1.0
    assert found["wasted_work"] < 0.01
    assert found["peak"] <= 32


def test_a_trigger_does_not_outlive_itself() -> None:
    assert figures(played(named("trigger").shortened(0.5)))["returned_to"] > 0.9


def test_an_outage_is_not_hammered_on() -> None:
    scenario = overload(2.0, seconds=8.0, faults=(Fault("F1", 2.0, 8.0),))
    assert figures(played(scenario))["attempts_per_call"] < 0.1


@pytest.mark.parametrize("variant", ["default", "told"])
def test_a_provider_that_tells_what_is_left_refuses_nobody_after_the_first_minute(variant: str) -> None:
    """1.2 times what it allows, for ten minutes; with the same calls one that is silent refuses many."""
    late: dict[str, int] = {}
    for name in ("provider-tells", "provider-silent"):
        run = play(named(name), variant, seed=2)
        late[name] = figures(run)["refused_late"]
        assert len(run.ledger.sent) > 700
    assert late["provider-tells"] == 0
    assert late["provider-silent"] > 20
