"""Every run of the table: which there are, and how they are played on all processors."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from multiprocessing import get_context
from typing import Any

from loadtests.simulate.metrics import figures
from loadtests.simulate.playing import play
from loadtests.simulate.plots import curves
from loadtests.simulate.scenarios import SCENARIOS

Task = tuple[str, str, int]
"""A scenario's name, a variant of the proxy, a seed."""

Result = tuple[Task, dict[str, Any], dict[str, Any]]
"""With its figures, and of the first seed what the plots show."""


def run(task: Task) -> Result:
    """Play one run. Raises VoidRunError if it proves nothing."""
    name, variant, seed = task
    gc.disable()  # a run keeps all that it makes until its figures are taken: to look for garbage is in vain
    try:
        played = play(SCENARIOS[name], variant, seed)
        return task, figures(played), curves(played) if seed == 1 else {}
    finally:
        gc.enable()


def tasks_of(patterns: Sequence[str], seeds: int) -> list[Task]:
    """Seed by seed; within one the longest first, so that no processor is left with one at the end.

    Without a proxy each is played once, for the plots; only the unloaded ones are what others are held to.
    """
    names = [name for name in SCENARIOS if any(fnmatch(name, pattern) for pattern in patterns)]
    tasks = [
        (name, variant, seed)
        for name in names
        for variant in SCENARIOS[name].variants
        for seed in range(1, seeds + 1)
        if seed == 1 or variant != "direct" or name.endswith("@0.5")
    ]
    return sorted(tasks, key=lambda task: (task[2], -_cost(task[0])))


def _cost(name: str) -> float:
    return sum(phase.seconds * phase.factor for phase in SCENARIOS[name].phases)


def results(tasks: Sequence[Task], jobs: int) -> Iterator[Result]:
    """As they come, from as many processes."""
    if jobs == 1:
        yield from map(run, tasks)
        return
    with get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(run, tasks)
