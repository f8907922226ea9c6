"""Which calls come when: an open loop, drawn from a seed, so that every proxy is asked the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from random import Random
from typing import Final

from loadtests.agents import Kind, arrivals

KINDS: Final = (
    Kind("critical", part=10, patience_s=5.0),
    Kind("normal", part=40, patience_s=10.0),
    Kind("background", part=50, patience_s=20.0),
)
"""As in issue 4's comparable run, but with less patience, so that a run is short."""
TENANTS: Final = 10
HEAVY: Final = 1 / 3
"""The part of all calls that one tenant makes; the others share the rest equally."""
RUDE: Final = 0.15
RUDE_RETRIES: Final = 5
"""A rude caller asks again at once, this many times, whatever it is told."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One load on an upstream of known capacity. `factor` counts logical calls, before any retry.

    Calls arrive for `warm_up_s` and then for `seconds`, which is the window that is measured. The callers'
    patience is `patience` times that of `KINDS`.
    """

    slots: int
    service_s: float
    factor: float
    warm_up_s: float
    seconds: float
    seed: int
    patience: float = 1.0

    @property
    def capacity_per_s(self) -> float:
        return self.slots / self.service_s

    def worth(self, seconds: float) -> int:
        """The calls that the upstream does in this time, at full speed: a queue of so many lasts so long."""
        return round(self.capacity_per_s * seconds)

    @property
    def arriving_s(self) -> float:
        return self.warm_up_s + self.seconds


@dataclass(frozen=True, slots=True)
class Call:
    """One logical call: `at_s` is when it is due, from the start of the run. Tenant 0 is the heavy one."""

    number: int
    at_s: float
    kind: Kind
    tenant: int
    is_rude: bool
    prompt_bytes: int

    def request(self, port: int, path: str, attempt: int) -> bytes:
        """One attempt (counted from 0) on the wire.

        All attempts of a call have the same body; no two calls have, nor, but by chance, the same length.
        The heads are those of an SDK; a rude caller is none, and counts no retries.
        """
        body = (
            f'{{"model":"demo-model","messages":[{{"role":"user","content":"Ticket {self.number}: '
            f'{"x" * self.prompt_bytes}"}}],"max_tokens":64}}'
        )
        lines = [
            f"POST {path} HTTP/1.1",
            f"host: 127.0.0.1:{port}",
            f"content-length: {len(body)}",
            "content-type: application/json",
            f"authorization: Bearer tenant-{self.tenant}",
            f"x-caller-id: tenant-{self.tenant}",
            f"x-priority: {self.kind.priority}",
            f"x-stainless-read-timeout: {self.kind.patience_s:g}",
            f"x-call-id: {self.number}.{attempt}",
        ]
        lines += [] if self.is_rude else [f"x-stainless-retry-count: {attempt}"]
        return "\r\n".join([*lines, "", body]).encode()


def calls(plan: Plan) -> Iterator[Call]:
    """The plan's calls in the order in which they are due."""
    chance = Random(f"{plan.seed}/{plan.factor}")
    kinds = [replace(kind, patience_s=kind.patience_s * plan.patience) for kind in KINDS]
    parts = [kind.part for kind in kinds]
    weights = [HEAVY, *[(1 - HEAVY) / (TENANTS - 1)] * (TENANTS - 1)]
    due = arrivals(plan.factor * plan.capacity_per_s, 0.0, chance)
    for number, at_s in enumerate(takewhile(lambda at_s: at_s < plan.arriving_s, due)):
        [kind] = chance.choices(kinds, parts)
        [tenant] = chance.choices(range(TENANTS), weights)
        yield Call(number, at_s, kind, tenant, chance.random() < RUDE, chance.randrange(50, 2000))
