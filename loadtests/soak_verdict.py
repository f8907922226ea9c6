"""What a soak came to: the samples of the proxy and the three ledgers of its calls, judged. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import median
from typing import Any, Final

MOST_GROWTH_MIB: Final = 2.0
"""Of resident memory over the second half. CPython takes memory in arenas of 1 MiB (Objects/obmalloc.c), so
two of them are noise; over the 60,000 calls of the second half of ten minutes they are 35 bytes a call, less
than an empty dict (64) or the smallest list with one item (64): a leak of one such object a call is found."""

MEMORY_NEEDS_S: Final = 300.0
"""A shorter soak says nothing about memory: its second half is still filling what is bounded by time (repeats
are remembered for 60 s) and by number."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The proxy at one instant, `at_s` after the start of the load. Memory is the kernel's count."""

    at_s: float
    rss_mib: float
    pss_mib: float
    open_files: int
    threads: int
    tasks: int
    connections: int
    permits: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that was to be shown, and whether it was. `ok` is None where the soak cannot tell."""

    name: str
    ok: bool | None
    says: str


@dataclass(frozen=True, slots=True)
class Proxys:
    """The proxy's own counts of calls, all lanes together."""

    offered: int
    admitted: int
    refused: int
    left: int
    settled: int
    crashes: int


ROWS: Final = (
    ("resident memory, MiB", "rss_mib"),
    ("proportional memory, MiB", "pss_mib"),
    ("open files", "open_files"),
    ("connections to upstreams", "connections"),
    ("tasks", "tasks"),
    ("threads", "threads"),
    ("permits held", "permits"),
    ("calls waiting", "waiting"),
)


def judge(
    base: Sample,
    samples: Sequence[Sample],
    callers: Mapping[str, Any],
    proxys: Proxys,
    upstreams: Mapping[str, Any],
    slots: int,
    seconds: float,
) -> list[Verdict]:
    """Every verdict. The last of `samples` was taken after the load, when nothing ought to run."""
    return [
        memory(samples[:-1], seconds),
        *_gone(base, samples[-1]),
        *conserved(callers, proxys, upstreams, slots),
    ]


def memory(samples: Sequence[Sample], seconds: float) -> Verdict:
    """Is it flat? By the median of the slopes between any two samples of the second half (Theil and Sen),
    which a few samples that fall into a burst do not move."""
    half = [sample for sample in samples if sample.at_s >= seconds / 2]
    if seconds < MEMORY_NEEDS_S or len(half) < 10:
        return Verdict("memory is flat", None, f"not judged under {MEMORY_NEEDS_S:g} s")
    slopes = [
        (b.rss_mib - a.rss_mib) / (b.at_s - a.at_s) for a, b in combinations(half, 2) if b.at_s > a.at_s
    ]
    grown_mib = median(slopes) * (half[-1].at_s - half[0].at_s)
    says = f"{grown_mib:+.2f} MiB over the second half, at most {MOST_GROWTH_MIB:g}"
    return Verdict("memory is flat", grown_mib <= MOST_GROWTH_MIB, says)


def _gone(base: Sample, end: Sample) -> Iterable[Verdict]:
    for name, field, most in (
        ("no file is left open", "open_files", base.open_files),
        ("no connection to an upstream is left", "connections", 0),
        ("no task is left", "tasks", base.tasks),
        ("no thread is left", "threads", base.threads),
        ("no permit is held", "permits", 0),
        ("no call waits", "waiting", 0),
    ):
        count = getattr(end, field)
        yield Verdict(name, count <= most, f"{count}, at most {most}")


def is_settled(base: Sample, now: Sample) -> bool:
    """Is everything given back?"""
    return all(verdict.ok for verdict in _gone(base, now))


def conserved(
    callers: Mapping[str, Any], proxys: Proxys, upstreams: Mapping[str, Any], slots: int
) -> Iterable[Verdict]:
    """Do the three ledgers agree: what the callers saw, what the proxy counted, what the upstream saw?

    A caller that leaves does not learn what became of its call: `left` is the slack between two ledgers.
    Every call was a POST, and no route has a fallback: each may reach the upstream once.
    """
    ends = total(callers["endings"])
    offered, left, good = callers["offered"], ends["left"], ends["good"]
    unknown = left + callers["reasons"].get("upstream_timeout", 0)  # or it came just too late
    done, arrived, peak = upstreams["completed"], upstreams["arrivals"], upstreams["peak_in_flight"]
    told = ", ".join(f"{count} {end}" for end, count in ends.items())
    answered = ends["open"] == ends["broken"] == 0
    yield Verdict("every attempt was answered", answered and offered == ends.total(), f"{offered} = {told}")
    yield Verdict(
        "the proxy knows of every attempt",
        offered - left <= proxys.offered <= offered,
        f"{offered - left} to {offered} offered, {proxys.offered} known",
    )
    yield Verdict(
        "the proxy admitted, refused or lost each of them",
        proxys.offered == proxys.admitted + proxys.refused + proxys.left,
        f"{proxys.offered} = {proxys.admitted} + {proxys.refused} + {proxys.left}",
    )
    yield Verdict(
        "every lease was settled once",
        proxys.admitted == proxys.settled,
        f"{proxys.admitted} granted, {proxys.settled} settled",
    )
    yield Verdict(
        "every refused attempt was told so",
        ends["refused"] <= proxys.refused <= ends["refused"] + left,
        f"{proxys.refused} refused, {ends['refused']} told",
    )
    yield Verdict(
        "no attempt reached the upstream twice, no refused one at all",
        arrived <= proxys.admitted,
        f"{proxys.admitted} admitted, {arrived} arrived",
    )
    yield Verdict(
        "every good answer was the upstream's, and reached its caller",
        good <= done <= good + unknown,
        f"{done} answered, {good} received whole, {unknown} left or timed out",
    )
    yield Verdict("the upstream was never asked for more than its cap", peak <= slots, f"{peak} of {slots}")
    yield Verdict("nothing runs at the upstream", upstreams["in_flight"] == 0, str(upstreams["in_flight"]))
    yield Verdict(
        "the proxy has no defect that ended a call", proxys.crashes == 0, f"{proxys.crashes} crashes"
    )


def total(endings: Mapping[str, Mapping[str, int]]) -> Counter[str]:
    """All kinds of calls together, by ending."""
    summed: Counter[str] = Counter()
    for ends in endings.values():
        summed.update(ends)
    return summed


def summary(base: Sample, samples: Sequence[Sample], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The table and the verdicts as JSON types."""
    end = samples[-1]
    return {
        "table": {
            name: {
                "start": getattr(base, field),
                "peak": max(getattr(sample, field) for sample in samples),
                "end": getattr(end, field),
            }
            for name, field in ROWS
        },
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "failed": [verdict.name for verdict in verdicts if verdict.ok is False],
    }


def render(found: Mapping[str, Any]) -> str:
    """The summary as a page for people."""
    lines = [f"{'':<28}{'start':>10}{'peak':>10}{'end':>10}"]
    for name, row in found["table"].items():
        cells = "".join(
            f"{cell:>10.1f}" if isinstance(cell, float) else f"{cell:>10}" for cell in row.values()
        )
        lines.append(f"{name:<28}{cells}")
    lines += [
        "",
        f"{'kind of call':<22}" + "".join(f"{end:>9}" for end in next(iter(found["endings"].values()))),
    ]
    lines += [
        f"{kind:<22}" + "".join(f"{count:>9}" for count in ends.values())
        for kind, ends in found["endings"].items()
    ]
    words = {True: "ok", False: "FAILED", None: "-"}
    lines += ["", *(f"{words[one['ok']]:<8}{one['name']}: {one['says']}" for one in found["verdicts"])]
    return "\n".join(lines)
