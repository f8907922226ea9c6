"""What replicas tell each other besides counts. Best effort: nothing that must be exact rests on it.

Who is refused at one replica, or fails there, may come back to another. A `Return` tells the others which
call that was and what it was told, a `Used` that it has come. A `Seen` tells of a run whose calls may go to
several. They ride with the trips that are made in any case (`ledger.py`), so the others know after a trip of
each, which is within a second or two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from proxy.core.verdict import Reason


class Place(NamedTuple):
    """The ticket of a refused call: the time in which room for it comes, and what was told with it."""

    step_s: float
    reason: Reason
    scope: str
    limit: str


class Return(NamedTuple):
    """A call that was refused or failed, as `repeats.Trace` has it; times are seconds from when it is told.

    `due_in_s` is inf for one that was not asked to come back. `number` tells it from all others of its
    replica.
    """

    key: tuple[str, str, bytes, int]
    digest: bytes | None
    due_in_s: float
    lives_s: float
    tokens: float
    place: Place | None
    number: int


class Used(NamedTuple):
    """The call that `replica` told of by `number` has come again: nobody need wait for it any more."""

    key: tuple[str, str, bytes, int]
    replica: str
    number: int


class Seen(NamedTuple):
    """A run with a budget: how many seconds ago its first call went, and its last; its sub-agents, each with
    the one that started it ("": the first).
    """

    run: str
    caller: str
    began_s: float
    last_s: float
    agents: list[tuple[str, str]]


class Hint(NamedTuple):
    """What one replica has to tell: `down` is for how many seconds its breakers have found upstreams down,
    `runs` those with a budget that go on, `halted` those that an operator has halted there.
    """

    replica: str
    returns: list[Return]
    used: list[Used]
    down: dict[str, float]
    runs: Sequence[Seen] = ()
    halted: Sequence[str] = ()
