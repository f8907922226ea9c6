"""What waits, and what is down, by route and by tool: for those who look on (`survey.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from proxy.core.breaker import OPEN, Breaker
from proxy.core.state import BreakerState, ToolState
from proxy.core.tools import worst_of

if TYPE_CHECKING:
    from proxy.core.gate import Gate


def of_tools(gate: Gate, now: float) -> Iterator[ToolState]:
    """A row for each tool that is configured with a queue or a breaker; all of `*` are one."""
    for route in gate.policy.routes.values():
        if not route.sets_apart:
            continue
        known = list(gate.tools.of_route(route.name))
        for label, policy in route.tools.items():
            if not policy.is_apart:
                continue
            own = [tool for tool in known if tool.label == label]
            depth, oldest_s = 0, 0.0
            for name in {tool.route.name for tool in own if tool.waits_apart}:
                depth += gate.room.lanes.depth(name)
                oldest_s = max(oldest_s, _age(gate.room.lanes.oldest(name), now))
            worst = worst_of(own)
            yield ToolState(
                route=route.name,
                label=label,
                depth=depth,
                oldest_s=oldest_s,
                breaker=None if worst is None else breaker_state(worst.target.name, worst.breaker, now),
                down=sum(tool.breaker is not None and tool.breaker.phase == OPEN for tool in own),
            )


def waiting(gate: Gate, route: str, now: float, first: int, last: int) -> tuple[int, float]:
    """How many of a route wait, with an order from `first` to `last`, and for how long the oldest has.

    Those in the queues of its tools are of the route too.
    """
    lanes = gate.room.lanes
    depth, oldest_s = 0, 0.0
    for name in _queues_of(gate, route):
        depth += lanes.depth(name, last, since=first)
        oldest_s = max(oldest_s, _age(lanes.oldest(name, last, since=first), now))
    return depth, oldest_s


def waiting_bytes(gate: Gate, route: str) -> int:
    """What the waiting calls of a route keep in memory, those in the queues of its tools among them."""
    return sum(gate.room.lanes.bytes_of(name) for name in _queues_of(gate, route))


def breaker_state(name: str, breaker: Breaker | None, now: float) -> BreakerState | None:
    """A breaker under the name of its upstream; None where there is none."""
    if breaker is None:
        return None
    window = breaker.window
    window.forget(now)
    calls = window.calls or 1
    return BreakerState(
        upstream=name,
        phase=breaker.phase,
        calls=window.calls,
        failure_ratio=window.failed / calls,
        slow_ratio=window.slow / calls,
        next_probe_s=breaker.due_s(now),
        dry_run=not breaker.enforced,
    )


def _queues_of(gate: Gate, route: str) -> set[str]:
    """The lanes of a route: its own, and those of its tools."""
    return {route} | {tool.route.name for tool in gate.tools.of_route(route)}


def _age(since: float | None, now: float) -> float:
    return 0.0 if since is None else now - since
