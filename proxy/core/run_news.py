"""What other replicas are told of runs with a budget (`hints.py`): since when, by whom, which are halted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

from proxy.core.hints import Seen
from proxy.core.rounding import NEVER

if TYPE_CHECKING:
    from proxy.core.run_budgets import Agent, Record

AGAIN_S: Final = 10.0
"""A run that goes on is told of again after so long, as are the halted: for replicas that came since."""

MOST_TOLD: Final = 128
"""Runs that one replica tells of with one trip; the rest with the next."""

MOST_WAITING: Final = 1024
"""Runs to tell of, between two trips; of more, those that have waited longest are left out this time."""

MOST_AGENTS_TOLD: Final = 64
"""Of one run, those met last."""

UNTOLD: Final = -NEVER
"""When a run was told of that never was."""


class RunNews:
    """What one replica is to tell with its next trip."""

    __slots__ = ("_halted_at", "_runs")

    def __init__(self) -> None:
        self._runs: OrderedDict[str, None] = OrderedDict()
        self._halted_at = UNTOLD

    def called(self, run: str, record: Record, now: float, *, by_new_agent: bool) -> None:
        """A call of a run was granted."""
        if by_new_agent or now - record.told_at >= AGAIN_S:
            record.told_at = now
            self._runs[run] = None
            if len(self._runs) > MOST_WAITING:
                self._runs.popitem(last=False)

    def halted(self) -> None:
        """An operator has halted a run here."""
        self._halted_at = UNTOLD

    def take(
        self, records: Mapping[str, Record], halted: OrderedDict[str, None], now: float
    ) -> tuple[list[Seen], list[str]]:
        """What to tell now: runs seen, those that have waited longest first, and the runs halted last."""
        seen: list[Seen] = []
        while self._runs and len(seen) < MOST_TOLD:
            run, _ = self._runs.popitem(last=False)
            record = records.get(run)
            if record is not None:
                seen.append(_seen(run, record, now))
        if not halted or now - self._halted_at < AGAIN_S:
            return seen, []
        self._halted_at = now
        return seen, _last(halted, MOST_TOLD)


def _seen(run: str, record: Record, now: float) -> Seen:
    agents = [(name, record.agents[name].parent) for name in _last(record.agents, MOST_AGENTS_TOLD)]
    return Seen(run, record.caller, now - record.began_at, now - record.last_at, agents)


def _last(names: dict[str, Agent] | OrderedDict[str, None], most: int) -> list[str]:
    """The last of a dict's keys, in their order."""
    return list(islice(reversed(names), most))[::-1]
