"""Whose time a sample is: what the profile reads from py-spy and perf, and how it tells our layers apart."""

from __future__ import annotations

import json

import pytest

from loadtests.cases import Case
from loadtests.kernel_time import read_report
from loadtests.profiling import Profile, render
from loadtests.stacks import LOOP, WRITES, Frame, layer, own, parse, shares, speedscope

MAIN = "thread (0x7F00): MainThread"
RUN = "Runner.run (/usr/lib/python3.11/asyncio/runners.py:86)"
TRY = "Pipeline._try (/srv/proxy/pipeline.py:87)"


def stack(*frames: str) -> tuple[Frame, ...]:
    [found] = parse(";".join([MAIN, *frames]) + " 1")
    return found


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([RUN], LOOP),
        ([RUN, TRY], "pipeline"),
        ([RUN, TRY, "Gate.offer (/srv/proxy/core/gate.py:71)"], "admission"),
        ([RUN, "CallerConnection.data_received (/srv/proxy/listener/connection.py:9)"], "listener"),
        ([RUN, TRY, "RequestHead.write (/srv/proxy/upstream/headers.py:91)"], "relay"),
        ([RUN, TRY, "Connection.write (/srv/proxy/upstream/connection.py:114)"], WRITES),
        ([RUN, TRY, "current_task (/usr/lib/python3.11/asyncio/tasks.py:35)"], "pipeline"),
        ([RUN, "main (/srv/proxy/cli.py:40)"], LOOP),
    ],
)
def test_a_sample_belongs_to_our_innermost_layer(frames: list[str], expected: str) -> None:
    assert layer(stack(*frames)) == expected


def test_a_function_is_named_by_its_place_in_our_tree_or_by_its_file() -> None:
    assert own(stack(RUN, TRY)) == "Pipeline._try (pipeline.py)"
    assert own(stack(RUN, "_keyed.<locals>.<listcomp> (/w/proxy/core/plan.py:45)")) == (
        "_keyed.<locals>.<listcomp> (core/plan.py)"
    )
    assert own(stack(RUN)) == "Runner.run (runners.py)"


def test_other_threads_are_not_the_calls_business() -> None:
    watcher = "thread (0x7F01): watcher;WorkerThread.run (/site/anyio/_asyncio.py:1124) 624"
    assert parse(f"{MAIN};{RUN} 3\n{watcher}\n{MAIN};{RUN} 4").total() == 7


def test_shares_are_of_all_samples() -> None:
    assert shares([("a", 1), ("b", 2), ("a", 5)]) == [("a", 0.75), ("b", 0.25)]


def test_the_page_turns_shares_into_microseconds_of_a_call() -> None:
    stacks = parse(f"{MAIN};{RUN} 25\n{MAIN};{RUN};{TRY} 75")
    alone = {"per_s": 10000.0, "cpu_us": 80.0, "busy": 0.99}
    page = render(Case.FORWARD, Profile(alone, stacks, [("kernel", 0.5), ("libc.so.6", 0.001)]))
    assert "   60.00   75.0%  pipeline" in page
    assert "   40.00   50.0%  kernel" in page
    assert "libc" not in page  # too little to be shown
    assert "   60.00   75.0%  Pipeline._try (pipeline.py)" in page
    assert "perf is not on PATH" in render(Case.FORWARD, Profile(alone, stacks, []))


def test_speedscope_gets_every_sample_with_its_weight() -> None:
    told = json.loads(speedscope(parse(f"{MAIN};{RUN} 25\n{MAIN};{RUN};{TRY} 75"), "calls"))
    [profile] = told["profiles"]
    assert sorted(zip(map(tuple, profile["samples"]), profile["weights"], strict=True)) == [
        ((0,), 25),
        ((0, 1), 75),
    ]
    assert profile["endValue"] == 100
    assert [frame["name"] for frame in told["shared"]["frames"]] == ["Runner.run", "Pipeline._try"]


def test_reports_of_perf_are_read_with_and_without_what_was_called() -> None:
    inclusive = "# Children Self Symbol\n#\n    27.08%     0.18%  [k] do_syscall_64      -   -\n"
    libraries = "\n    64.80%  libpython3.11.so.1.0\n    25.90%  [kernel.kallsyms]  \n"
    assert read_report(inclusive) == [("do_syscall_64", pytest.approx(0.2708))]
    assert [name for name, _ in read_report(libraries)] == ["libpython3.11.so.1.0", "[kernel.kallsyms]"]
