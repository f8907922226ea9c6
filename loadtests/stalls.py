"""When a machine stood still: where it is shared, a core may be somebody else's for milliseconds at a time.

A call that was under way then says nothing of the program that carried it. On the machine of this project's
figures they are away for 10 to 100 ms now and then: a hundredth of the time is a whole 99th percentile.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final, Self

TICK_S: Final = 0.001
LATE_S: Final = 0.0005
"""Who sleeps above all others on a core wakes within a tenth of this."""

PRIORITY: Final = 50


def cores_of(*lists: str | None) -> list[int]:
    """The cores that lists for taskset (`0`, `1-3,5`) name; none for None."""
    cores: set[int] = set()
    for part in ",".join(each for each in lists if each).split(","):
        first, _, last = part.partition("-")
        if first:
            cores.update(range(int(first), int(last or first) + 1))
    return sorted(cores)


class Stalls:
    """Watches some cores while it is open. `seen`: from when until when one of them stood still.

    A thread sleeps on each core, above all else there (SCHED_FIFO): whoever wakes late then was kept by the
    machine and by no program. Where that is not allowed `blind` is true, and nothing is seen: a watch that
    waits its turn would blame the machine for what a program did.
    """

    def __init__(self, cores: Iterable[int]) -> None:
        self.blind = False
        self.seen: list[tuple[float, float]] = []
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
        while not self._over.is_set():
            slept_at = time.perf_counter()
            time.sleep(TICK_S)
            woke_at = time.perf_counter()
            if woke_at - slept_at > TICK_S + LATE_S:
                self.seen.append((slept_at, woke_at))


def untouched(
    calls: Iterable[tuple[float, float, float]], stalls: Sequence[tuple[float, float]]
) -> list[tuple[float, float, float]]:
    """The calls (due at, noticed late by, answered after) that no stall touched, nor what it left behind.

    At half load what has gathered in a stall takes as long again to be worked off.
    """
    spans: list[tuple[float, float]] = []
    for begun, ended in sorted((begun, ended + (ended - begun)) for begun, ended in stalls):
        if spans and begun <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(ended, spans[-1][1]))
        else:
            spans.append((begun, ended))
    ends = [ended for _, ended in spans]

    def is_untouched(due_at: float, answered_at: float) -> bool:
        following = bisect_left(ends, due_at)
        return following == len(spans) or spans[following][0] > answered_at

    return [call for call in calls if is_untouched(call[0], call[0] + call[2])]
