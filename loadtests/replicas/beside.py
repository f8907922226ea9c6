"""`make compare-replicas`: one limit over two replicas and a Redis; how well is it kept, here and by LiteLLM?

Both get the same calls from the same generator, at the same instants, and are judged by the same code, by the
upstream's ledger alone. It is about counts, not about speed: the load is far below what either can carry.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from loadtests.program import finish, parser_of, write_json
from loadtests.replicas import litellm
from loadtests.replicas.__main__ import Scenario, play_all
from loadtests.replicas.bucket import SETTLED_S, why_void
from loadtests.replicas.exactness import (
    in_flight,
    mean_in_flight,
    rate_between,
    reached_after,
    worst_of_length,
)
from loadtests.replicas.plans import Yaml, load, yaml
from loadtests.replicas.site import Action, Program, Replica, Run, Stream, build, ours, site
from loadtests.replicas.table import Rows
from proxy.core.ledger import LEASE_S

REPLICAS: Final = 2
MINUTE_S: Final = 60.0
FACTOR: Final = 3.0
"""So many times the limit is offered."""
CALM: Final = 0.1
"""So many times the limit, before the load comes where it comes late."""
CAP_FACTOR: Final = 2.0
"""So many times what the slots can do. A proxy without a queue then uses 92 % of them (Erlang's formula)."""
JITTER_S: Final = 0.1
"""A window is judged that much shorter: a call that was late at the upstream is in the next one."""
BURST: Final = 15
"""Ours may grant so many at once, and the rest of the limit evenly over the minute: that is never more than
the limit in any 60 s, for `burst + rate * 60 s` is the limit."""
BACK: Final = 0.9
OVER_S: Final = 2.0
"""A killed replica's permits are back when so much of what was in use before is again, over such a time."""
REFUSED: Final = frozenset({429, 503})
USED: Final = "of the limit in use"
OTHER: Final = "calls with another answer or none"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two. Goals are for ours."""

    name: str
    yaml: Yaml
    program: Program
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` calls in any 60 s. FACTOR times that is offered, for the first `calm_s` only CALM.

    `used` is the part of the limit that ours is to use over the whole minutes; 0.0: nothing is said of it.
    """

    limit: int
    seconds: float
    skew: float = 1.0
    calm_s: float = 0.0
    used: float = 0.0

    @property
    def per_s(self) -> float:
        return self.limit / MINUTE_S

    @property
    def planned(self) -> float:
        return self.per_s * (CALM * self.calm_s + FACTOR * (self.seconds - self.calm_s))


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `slots` calls at once, of `service_s` each. With `kill` one replica is killed after a third."""

    slots: int
    service_s: float
    seconds: float
    skew: float = 1.0
    kill: bool = False

    @property
    def per_s(self) -> float:
        return CAP_FACTOR * self.slots / self.service_s


def rate_sides(peer: Path | None, setup: str, limit: int) -> list[Side]:
    """Ours, and LiteLLM if there is one, in one of its SETUPS."""
    rate = (limit - BURST) / MINUTE_S
    sides = [Side("ours", yaml(rate_per_s=rate, burst=BURST, dialect="openai"), ours(), is_ours=True)]
    if peer is None:
        return sides
    programs = {
        "key": litellm.program(peer, rpm=limit),
        "windows": litellm.program(
            peer, rpm=int(limit * litellm.WINDOW_S / MINUTE_S), window_s=litellm.WINDOW_S
        ),
        "deployment": litellm.program(peer),
    }
    rules = litellm.yaml(deployment_rpm=limit if setup == "deployment" else None)
    return [*sides, Side("litellm", rules, programs[setup], is_ours=False)]


def cap_sides(peer: Path | None, slots: int) -> list[Side]:
    """Ours, and LiteLLM if there is one: its key's cap, for a deployment's is each instance's own."""
    sides = [Side("ours", yaml(cap=slots, dialect="openai"), ours(), is_ours=True)]
    if peer:
        sides.append(Side("litellm", litellm.yaml(), litellm.program(peer, most=slots), is_ours=False))
    return sides


def measure_rate(plan: Rate, sides: Sequence[Side], folder: Path) -> Rows:
    """Both under the same calls, one after the other. Callers return as SDKs do."""
    rows = Rows(folder.name, [])
    for side in sides:
        with site(_own(folder, side), side.yaml, replicas=REPLICAS, program=side.program) as here:
            offered = partial(load, here.replicas)
            streams = offered(CALM * plan.per_s, plan.skew, 0.0, plan.calm_s) if plan.calm_s else []
            streams += offered(FACTOR * plan.per_s, plan.skew, plan.calm_s, plan.seconds)
            run = here.play(streams, chat=True)
        judge_rate(Rows(_own(folder, side).name, rows.rows), side, plan, run, time.time() - time.monotonic())
    return rows


def measure_cap(plan: Cap, sides: Sequence[Side], folder: Path) -> Rows:
    """Both under the same calls, one after the other. Callers return as SDKs do."""
    rows = Rows(folder.name, [])
    for side in sides:
        with site(
            _own(folder, side), side.yaml, replicas=REPLICAS, program=side.program, service_s=plan.service_s
        ) as here:
            streams, actions = _cap_script(plan, here.replicas)
            run = here.play(streams, actions, chat=True)
            held = None if side.is_ours else litellm.held(here.redis)
        judge_cap(Rows(_own(folder, side).name, rows.rows), side, plan, run, held)
    return rows


def _own(folder: Path, side: Side) -> Path:
    return folder.with_name(f"{folder.name} {side.name}")


def _cap_script(plan: Cap, replicas: Sequence[Replica]) -> tuple[list[Stream], list[Action]]:
    kill_s = plan.seconds / 3 if plan.kill else plan.seconds
    streams = load(replicas, plan.per_s, plan.skew, 0.0, kill_s)
    if not plan.kill:
        return streams, []
    streams += load(replicas[1:], plan.per_s, plan.skew, kill_s, plan.seconds)
    return streams, [(kill_s, replicas[0].kill)]


def judge_rate(rows: Rows, side: Side, plan: Rate, run: Run, unix_ahead_s: float) -> None:
    """`unix_ahead_s`: what Unix time is ahead of the ledger's clock."""
    rows.void = why_void(run, plan.planned)
    arrived = [at for at in _named(run) if at >= run.begin_at]
    most = worst_of_length(arrived, 0.0, 0.0, MINUTE_S - JITTER_S)
    beyond = f"{max(0.0, most / plan.limit - 1.0):.1%} beyond"
    _at_most(rows, side, f"calls in the worst 60 s, of {plan.limit}", most, plan.limit, says=beyond)
    rows.note("in the worst minute of the clock", most_of_a_minute(arrived, unix_ahead_s))
    whole_s = plan.seconds // MINUTE_S * MINUTE_S or plan.seconds
    used = rate_between(arrived, run.begin_at, run.begin_at + whole_s) / plan.per_s
    if side.is_ours and plan.used:
        rows.at_least(USED, used, plan.used, "", f"{whole_s:.0f} s")
    elif not plan.calm_s:
        rows.note(USED, used, "", f"{whole_s:.0f} s")
    refused = [record for record in run.records if record[6] in REFUSED]
    told = [record[8] for record in refused if record[8] is not None]
    longest = f"{min(told, default=0.0):.1f} to {max(told, default=0.0):.1f} s"
    rows.note("of the refused told when to return", len(told) / max(1, len(refused)), "", longest)
    kept, returned = promises(run.records)
    rows.note("of those who returned then, let in", kept / max(1, returned), "", f"{kept} of {returned}")
    _at_most(rows, side, OTHER, _other(run), 0.0)


def judge_cap(rows: Rows, side: Side, plan: Cap, run: Run, held: int | None) -> None:
    """`held`: the slots that LiteLLM's Redis counted as taken when all calls had ended."""
    rows.void = why_void(run, plan.per_s * plan.seconds)
    curve = in_flight((call[1], call[2]) for call in run.calls if call[0])
    most = max((running for _, running in curve), default=0)
    _at_most(rows, side, f"most in flight at the upstream, of {plan.slots}", most, plan.slots)
    begun, ended = run.begin_at, run.begin_at + plan.seconds
    killed = begun + plan.seconds / 3 if plan.kill else ended
    before = mean_in_flight(curve, begun + SETTLED_S, killed)
    used = before / plan.slots
    if side.is_ours:
        rows.at_least("of the cap in use", used, 0.95)
    else:
        rows.note("of the cap in use", used)
    if not plan.kill:
        _at_most(rows, side, OTHER, _other(run), 0.0)
    else:
        back_s = back_in_flight(curve, killed, BACK * before, ended)
        never = f"not within {ended - killed:.0f} s" if back_s == float("inf") else ""
        _at_most(rows, side, f"back at {BACK:.0%} of that after the kill", back_s, LEASE_S + 1.0, " s", never)
        rows.note("of the cap in use, last 10 s", mean_in_flight(curve, ended - 10.0, ended) / plan.slots)
    if held is not None:
        rows.note("slots taken in Redis when all calls had ended", held)


def _at_most(
    rows: Rows, side: Side, what: str, found: float, goal: float, unit: str = "", says: str = ""
) -> None:
    if side.is_ours:
        rows.at_most(what, found, goal, unit, says)
    else:
        rows.note(what, found, unit, "; ".join(filter(None, (says, rows.void))))


def _other(run: Run) -> int:
    return sum(record[6] not in {200, *REFUSED} for record in run.records)


def _named(run: Run) -> list[float]:
    """When each of the callers' calls came to the upstream: a proxy asks it for things of its own, too."""
    return sorted(call[1] for call in run.calls if call[0])


def most_of_a_minute(arrived: Iterable[float], unix_ahead_s: float) -> int:
    """Of any minute that begins when a clock on the wall says so."""
    minutes: dict[int, int] = {}
    for at in arrived:
        minute = int((at + unix_ahead_s) // MINUTE_S)
        minutes[minute] = minutes.get(minute, 0) + 1
    return max(minutes.values(), default=0)


def promises(records: Sequence[Sequence[Any]]) -> tuple[int, int]:
    """How many came back at the time they were told and were let in, and how many came back then."""
    told = {(record[1], record[2]): record[8] for record in records if record[6] in REFUSED}
    returned = [record[6] for record in records if told.get((record[1], record[2] - 1)) is not None]
    return sum(status == 200 for status in returned), len(returned)


def back_in_flight(curve: Sequence[tuple[float, int]], since: float, least: float, until: float) -> float:
    """From `since`: the seconds until so many are in flight again, in the mean of OVER_S; inf: never."""
    return reached_after(partial(mean_in_flight, curve), since, least, until, OVER_S)


def scenarios(peer: Path | None, setup: str, *, quick: bool) -> dict[str, Scenario]:
    """By name. `quick` is a look: one window of LiteLLM's less, and a shorter cap."""
    minutes_s, part = (65.0, 0.5) if quick else (130.0, 1.0)
    limit, slots = 300, 10
    rates = {
        "rate": Rate(limit, minutes_s, used=0.9),
        "rate-skew": Rate(limit, minutes_s, skew=8.0, used=0.9),
        "rate-late": Rate(limit, 110.0, calm_s=40.0),
    }
    caps = {
        "cap": Cap(slots, 1.0, 30.0 * part),
        "cap-skew": Cap(slots, 1.0, 30.0 * part, skew=8.0),
        "cap-kill": Cap(slots, 1.0, 60.0 * part, kill=True),
    }
    found: dict[str, Scenario] = {}
    for name, rate in rates.items():
        found[name] = partial(measure_rate, rate, rate_sides(peer, setup, limit))
    for name, cap in caps.items():
        found[name] = partial(measure_cap, cap, cap_sides(peer, slots))
    return found


def options() -> argparse.ArgumentParser:
    parser = parser_of("compare-replicas", __doc__, "the JSON")
    parser.add_argument("--quick", action="store_true", help="a look: shorter loads")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="such as rate,cap-kill")
    parser.add_argument("--litellm", type=Path, help="its executable; else build/peers/litellm, else PATH")
    parser.add_argument(
        "--setup", choices=litellm.SETUPS, default="key", help="where LiteLLM's rate is stated"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """0: ours met every goal. 1: it missed one. StartError when something did not start."""
    parser = options()
    asked = parser.parse_args(arguments)
    peer = litellm.executable(asked.litellm)
    known = scenarios(peer, asked.setup, quick=asked.quick)
    if wrong := set(asked.only) - set(known):
        parser.error(f"no such scenario: {', '.join(sorted(wrong))}; there are {', '.join(known)}")
    used, theirs = build(), litellm.version(peer) if peer else None
    print(f"build: {used}", flush=True)
    print(f"litellm {theirs}, set-up {asked.setup}" if peer else litellm.LEFT_OUT, flush=True)
    rows = play_all(known, asked.only)
    told = {"build": used, "litellm": theirs, "setup": asked.setup, "quick": asked.quick, "rows": rows}
    print(f"\nwritten to {write_json(asked.results, 'compare-replicas', told)}")
    return int(any(row["verdict"] == "MISS" for row in rows))


if __name__ == "__main__":
    finish(main)
