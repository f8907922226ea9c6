"""When a machine hindered what it ran: a core of a shared one may be somebody else's for a while, or half so.

A call that was under way then says nothing of the program that carried it. The machine of this project's
figures stands still for 10 to 100 ms now and then, and for 5 to 60 % of the time a core does everything 1.6
times slower, 20 to 300 ms long: somebody else computes on the other thread of the same core. A hundredth of
the time is a whole 99th percentile.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import ClassVar, Final, Self

Span = tuple[float, float]
"""From when until when (`time.perf_counter`)."""
Tick = tuple[float, float, float]
"""When a watch lay down on its core, when it woke, and the seconds that its piece of work took then."""

TICK_S: Final = 0.002
LATE_S: Final = 0.0005
"""Who sleeps above all others on a core wakes within a tenth of this."""
SLOWED: Final = 1.25
"""The piece of work takes 1.0 to 1.1 times its shortest time on a whole core, 1.4 to 1.9 on half of one."""

PRIORITY: Final = 50


def cores_of(*lists: str | None) -> list[int]:
    """The cores that lists for taskset (`0`, `1-3,5`) name; none for None."""
    cores: set[int] = set()
    for part in ",".join(each for each in lists if each).split(","):
        first, _, last = part.partition("-")
        if first:
            cores.update(range(int(first), int(last or first) + 1))
    return sorted(cores)


class Watch:
    """Watches some cores while it is open. `hindered`: from when until when one stood still or was slow.

    A thread sleeps on each core, above all else there (SCHED_FIFO), and does the same few microseconds' work
    whenever it wakes. If it wakes late it was kept by the machine and by no program, and so it is if its work
    takes longer than it does at best, for which the caches hold all that it needs, whatever ran before. Where
    that is not allowed `blind` is true, and nothing is seen: a watch that waits its turn would blame the
    machine for what a program did.
    """

    fastest_s: ClassVar[dict[int, float]] = {}
    """What the work took each core at best since this process began: one may be slow for all of a watch."""

    def __init__(self, cores: Iterable[int]) -> None:
        self.blind = False
        self.hindered: list[Span] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=(core,)) for core in cores]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _watch(self, core: int) -> None:
        try:
            os.sched_setaffinity(0, {core})
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        except OSError:
            self.blind = True
            return
        ticks: list[Tick] = []
        while not self._over.is_set():
            slept_at = time.perf_counter()
            time.sleep(TICK_S)
            woke_at = time.perf_counter()
            ticks.append((slept_at, woke_at, _work_s()))
        best_s = min((work_s for _, _, work_s in ticks), default=float("inf"))
        self.fastest_s[core] = best_s = min(best_s, self.fastest_s.get(core, best_s))
        self.hindered += hindered(ticks, best_s)


def _work_s() -> float:
    """The seconds that some microseconds of what an interpreter does all day take, at best of three times.

    The first finds the caches as another program left them; one may be met by an interrupt.
    """
    best_s = float("inf")
    for _ in range(3):
        begun_at = time.perf_counter()
        for number in range(64):
            str(number)
        best_s = min(best_s, time.perf_counter() - begun_at)
    return best_s


def hindered(ticks: Sequence[Tick], best_s: float) -> list[Span]:
    """When one core stood still or was slow, by what its watch saw. Spans less than a tick apart are one.

    `best_s`: what the work takes at best.
    """
    slow = (
        (slept_at, woke_at)
        for slept_at, woke_at, work_s in ticks
        if woke_at - slept_at > TICK_S + LATE_S or work_s > best_s * SLOWED
    )
    return _joined(slow, TICK_S)


def untouched(
    calls: Iterable[tuple[float, float, float]], spans: Iterable[Span]
) -> list[tuple[float, float, float]]:
    """The calls (due at, noticed late by, answered after) that no such span touched, nor what it left behind.

    At half load what has gathered meanwhile takes as long again to be worked off.
    """
    merged = _joined(sorted((begun, ended + (ended - begun)) for begun, ended in spans), 0.0)
    ends = [ended_at for _, ended_at in merged]

    def is_untouched(due_at: float, answered_at: float) -> bool:
        following = bisect_left(ends, due_at)
        return following == len(merged) or merged[following][0] > answered_at

    return [call for call in calls if is_untouched(call[0], call[0] + call[2])]


def _joined(spans: Iterable[Span], apart_s: float) -> list[Span]:
    """Spans by their beginning; those that are no more than `apart_s` apart are one."""
    joined: list[Span] = []
    for begun_at, ended_at in spans:
        if joined and begun_at - joined[-1][1] <= apart_s:
            joined[-1] = (joined[-1][0], max(ended_at, joined[-1][1]))
        else:
            joined.append((begun_at, ended_at))
    return joined
