"""What is played: load over time, of whom, to which upstream, with which fault. Pure figures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

LOADS: Final = (0.5, 0.9, 1.0, 1.5, 2.0, 5.0, 10.0)
"""Logical calls offered, before retries, as multiples of what the upstream can do."""

EQUAL: Final = (1.0,) * 10
ELEPHANT: Final = (100.0,) + (1.0,) * 9
WITHOUT_THE_FIRST: Final = (0.0,) + (1.0,) * 9


@dataclass(frozen=True, slots=True)
class Phase:
    """So many seconds at so many times the capacity. `weights` of the tenants, if not the scenario's."""

    seconds: float
    factor: float
    weights: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong with the upstream from `at` to `until`: F1 to F5."""

    name: str
    at: float
    until: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run. What is measured is what was offered, and what was done, in `window`.

    `limits` is how many times what its machine can do U3's provider allows; `counts_failed`: also what it
    refuses is charged; `tells`: its answers say what is left of its limits. `trigger` is since when and until
    when a load is the trouble.
    """

    name: str
    upstream: str
    phases: tuple[Phase, ...]
    window: tuple[float, float]
    faults: tuple[Fault, ...] = ()
    weights: tuple[float, ...] = EQUAL
    chains: bool = False
    only_class: int | None = None
    critical_share: float | None = None
    critical_most: float = 0.6
    limits: float = 4.0
    counts_failed: bool = False
    tells: bool = False
    trigger: tuple[float, float] | None = None
    variants: tuple[str, ...] = ("default", "told")

    @property
    def seconds(self) -> float:
        """How long calls arrive."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def trouble(self) -> tuple[float, float] | None:
        """Since when and until when something is wrong, if all is well before it."""
        if self.faults and self.faults[0].at > 0:
            return self.faults[0].at, self.faults[0].until
        return self.trigger

    def shortened(self, share: float) -> Scenario:
        """The same in a part of the time, for a quick look."""
        return replace(
            self,
            phases=tuple(replace(phase, seconds=phase.seconds * share) for phase in self.phases),
            window=(self.window[0] * share, self.window[1] * share),
            trigger=self.trigger and (self.trigger[0] * share, self.trigger[1] * share),
            faults=tuple(Fault(each.name, each.at * share, each.until * share) for each in self.faults),
        )


DIRECT: Final = ("default", "told", "direct")


def _load(upstream: str, factor: float) -> Scenario:
    """Half load, a step, and half load again; measured on the step, once it has lasted 15 s.

    U1 far beyond its capacity is measured later: nobody can be told to come back after more than 55 s, and
    only then do those come back who were told so. Streams are slower by two orders of magnitude.
    """
    rest, step, warm_up = (60.0, 720.0, 120.0) if upstream == "u3" else (10.0, 45.0, 15.0)
    if upstream == "u1" and factor >= 5.0:
        step, warm_up = 85.0, 60.0
    return Scenario(
        f"{upstream}@{factor:g}",
        upstream,
        (Phase(rest, 0.5), Phase(step, factor), Phase(rest, 0.5)),
        (rest + warm_up, rest + step),
        variants=DIRECT,
    )


def _chains(factor: float) -> Scenario:
    return Scenario(
        f"chains@{factor:g}", "u1", (Phase(10.0, 0.5), Phase(50.0, factor)), (25.0, 60.0), chains=True
    )


def _all() -> tuple[Scenario, ...]:
    steady = tuple(_load(upstream, factor) for upstream in ("u1", "u2", "u3") for factor in LOADS)
    return (
        *steady,
        *(_chains(factor) for factor in (0.5, 2.0, 5.0, 10.0)),
        # One tenant asks a hundred times as much as each of the others, who together stay below their share.
        Scenario("elephant", "u1", (Phase(30.0, 10.0),), (10.0, 30.0), weights=ELEPHANT, only_class=1),
        Scenario(
            "return",
            "u1",
            (Phase(60.0, 2.0, WITHOUT_THE_FIRST), Phase(30.0, 3.0, (10.0,) + (1.0,) * 9)),
            (60.0, 90.0),
            only_class=1,
        ),
        Scenario(
            "bursts", "u1", (Phase(10.0, 0.5), *((Phase(1.0, 5.0), Phase(4.0, 0.25)) * 8)), (20.0, 50.0)
        ),
        Scenario(
            "critical-1.5",
            "u1",
            (Phase(40.0, 2.0),),
            (15.0, 40.0),
            critical_share=0.75,
            critical_most=1.5,
        ),
        Scenario(
            "outage", "u1", (Phase(10.0, 1.5), Phase(71.0, 5.0)), (50.0, 80.0), (Fault("F1", 20.0, 50.0),)
        ),
        Scenario(
            "brownout",
            "u1",
            (Phase(100.0, 2.0),),
            (25.0, 80.0),
            (Fault("F2", 20.0, 80.0),),
            critical_most=0.2,
        ),
        Scenario("slow", "u3", (Phase(900.0, 1.5),), (300.0, 600.0), (Fault("F3", 300.0, 600.0),)),
        Scenario(
            "provider",
            "u3",
            (Phase(900.0, 1.5),),
            (300.0, 360.0),
            (Fault("F4", 300.0, 360.0),),
            limits=1.2,
        ),
        Scenario(
            "provider-strict", "u3", (Phase(900.0, 1.5),), (120.0, 900.0), limits=1.2, counts_failed=True
        ),
        # 1.2 times what the provider allows, which is 0.8 of what its machine can do; and the same as it was.
        *(
            Scenario(
                name, "u3", (Phase(600.0, 0.96),), (60.0, 600.0), limits=0.8, counts_failed=True, tells=tells
            )
            for name, tells in (("provider-tells", True), ("provider-silent", False))
        ),
        Scenario("zombies", "u1", (Phase(60.0, 2.0),), (15.0, 60.0), (Fault("F5", 0.0, 60.0),)),
        Scenario(
            "trigger",
            "u2",
            (Phase(20.0, 0.8), Phase(1.0, 10.0), Phase(60.0, 0.8)),
            (21.0, 81.0),
            trigger=(20.0, 21.0),
            variants=DIRECT,
        ),
    )


SCENARIOS: Final = {scenario.name: scenario for scenario in _all()}
