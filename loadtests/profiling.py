"""`make profile`: where a call's microseconds go in our proxy, under the load of one case of `make compare`.

The CPU of a call is measured first, without a profiler. Then py-spy samples the proxy under the same load,
and after it perf where it works; the shares of their samples are shares of that CPU.

py-spy samples without pausing the process. With pauses, and more so with frames of C, it finds a process
where it can be stopped: at its system calls. So getpid(2) once seemed to cost 9 % of a call; it costs 0.2 %.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loadtests.cases import Case
from loadtests.compare import calls, streams
from loadtests.compare.bench import Bench, Turn, add_options, set_up, start, start_origin
from loadtests.kernel_time import by_library, record_command
from loadtests.peers import contenders
from loadtests.program import finish, parser_of, place
from loadtests.running import StartError, free_port, pinned, running, said
from loadtests.stacks import Stack, layer, own, parse, shares, speedscope

SHOWN: Final = 30
LEAST_SHARE: Final = 0.003
"""Of a library, to be shown."""
CASES: Final = (Case.FORWARD, Case.TLS, Case.REFUSE, Case.LARGE, Case.SSE)
SAMPLES_PER_S: Final = 500
LEAD_S: Final = 1.0
"""The load begins this much before the sampling, and lasts this much longer."""


def options() -> argparse.ArgumentParser:
    parser = parser_of("profile", __doc__, "the samples")
    parser.add_argument("--case", type=Case, default=Case.FORWARD, choices=CASES)
    parser.add_argument("--seconds", type=float, default=10.0, help="of sampling")
    add_options(parser)
    return parser


def find_py_spy() -> str:
    """Beside our interpreter, or on PATH. StartError where it is not."""
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise StartError("py-spy is not installed: pip install '.[load]', or `make profile`, which does it")
    return found


def load(bench: Bench, turn: Turn, seconds: float) -> dict[str, Any]:
    """The case's load for so long; its figures."""
    measure = streams.measure_events if turn.case is Case.SSE else calls.measure
    return measure(bench, turn, seconds)


def record(bench: Bench, turn: Turn, py_spy: str, seconds: float) -> str:
    """py-spy's raw stacks of the proxy under load. StartError when it may not look, or saw nothing."""
    raw = bench.folder / "stacks.txt"
    command = [py_spy, "record", "--pid", str(turn.pid), "--duration", str(round(seconds)), "--format", "raw"]
    command += ["--rate", str(SAMPLES_PER_S), "--nonblocking", "--threads", "--function", "--full-filenames"]
    command += ["--output", str(raw)]
    code = _watched(bench, turn, "py-spy", command, seconds)
    if code or not raw.exists():
        reason = said(bench.folder / "py-spy.log")
        raise StartError(f"py-spy could not sample the proxy (it needs ptrace): {reason}")
    return raw.read_text()


def record_libraries(bench: Bench, turn: Turn, seconds: float) -> list[tuple[str, float]]:
    """perf's shares of the proxy under load; none where there is no perf, or it may not look."""
    file = bench.folder / "perf.data"
    command = record_command(turn.pid, seconds, file)
    if command is None or _watched(bench, turn, "perf", command, seconds):
        return []
    return by_library(file)


def _watched(bench: Bench, turn: Turn, name: str, command: list[str], seconds: float) -> int:
    """The profiler's exit status, after it looked at the proxy under a load that outlasts it."""
    with running(name, pinned(command, bench.cores.others), bench.folder) as watching:
        load(bench, turn, seconds + LEAD_S)
        return watching.wait(seconds + 60)


@dataclass(frozen=True, slots=True)
class Profile:
    """The figures of the load alone; what was sampled after it."""

    alone: dict[str, Any]
    stacks: Mapping[Stack, int]
    libraries: Sequence[tuple[str, float]]


def run(asked: argparse.Namespace, folder: Path) -> Profile:
    """Measure, then sample. StartError when something did not start, or could not be sampled."""
    py_spy = find_py_spy()
    bench = set_up(folder, asked)
    ours = contenders(free_port, install=False)[0]
    with ExitStack() as stack:
        turn = start(stack, bench, ours, asked.case, start_origin(stack, bench, asked.case))
        load(bench, turn, LEAD_S)  # connections, caches
        alone = load(bench, turn, 3.0)
        stacks = parse(record(bench, turn, py_spy, asked.seconds))
        if not stacks:
            raise StartError("py-spy saw no sample of the main thread")
        return Profile(alone, stacks, record_libraries(bench, turn, asked.seconds / 2))


def render(case: Case, profile: Profile) -> str:
    """Microseconds of a call by layer, by library, and of the functions that have the most to themselves."""
    unit, alone, stacks = "event" if case is Case.SSE else "call", profile.alone, profile.stacks
    cpu_us = alone["cpu_us"]

    def rows(title: str, found: Sequence[tuple[str, float]]) -> list[str]:
        head = ["", f"{title}:", f"  {'us':>6}{'share':>8}"]
        return head + [f"  {share * cpu_us:>6.2f}{share:>8.1%}  {name}" for name, share in found]

    lines = [
        f"{case}: {alone['per_s']:.0f} {unit}s/s, {cpu_us:.1f} us of CPU each, core {alone['busy']:.0%} busy"
    ]
    by_layer = shares((layer(stack), count) for stack, count in stacks.items())
    lines += rows(f"by layer ({sum(stacks.values())} samples of py-spy)", by_layer)
    if profile.libraries:
        lines += rows("by library (perf)", [one for one in profile.libraries if one[1] >= LEAST_SHARE])
    else:
        lines += ["", "by library: perf is not on PATH, or may not look (kernel.perf_event_paranoid)"]
    by_function = shares((own(stack), count) for stack, count in stacks.items())[:SHOWN]
    return "\n".join(lines + rows(f"the {SHOWN} functions with most time of their own", by_function))


def main(arguments: Sequence[str] | None = None) -> int:
    """0: sampled. StartError when something did not start, or may not be sampled."""
    asked = options().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="backpressure-profile-") as folder:
        profile = run(asked, Path(folder))
    text = render(asked.case, profile)
    file = place(asked.results, f"profile-{asked.case}")
    written = file.with_suffix(".speedscope.json")
    written.write_text(speedscope(profile.stacks, file.name))
    file.with_suffix(".txt").write_text(text + "\n")
    print(f"{text}\n\nwritten to {written} (open it with https://www.speedscope.app)")
    return 0


if __name__ == "__main__":
    finish(main)
