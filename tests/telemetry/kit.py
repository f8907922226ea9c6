"""What the telemetry and control tests share: a clock, calls, a gate's state, a parsed scrape."""

from __future__ import annotations

import io
import json
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from proxy.core.call import Call
from proxy.core.state import (
    BreakerState,
    BucketState,
    CapState,
    GateState,
    LaneState,
    RetryBudgetState,
    RouteState,
    StoreState,
    ToldState,
    ToolState,
    UpstreamState,
)
from proxy.telemetry import Log, Telemetry
from tests.kit.clock import ManualClock

CLASSES = ("critical", "normal", "background")
EMPTY = GateState(draining=False, lanes=(), caps=(), buckets=(), breakers=(), retry_budgets=(), upstreams=())
BUSY = GateState(
    draining=True,
    lanes=(LaneState("chat", "critical", 3, 1.25), LaneState("chat", "background", 0, 0.0)),
    caps=(CapState("upstream:openai", 7, 8), CapState("tool:github/search", 1, 2, leased=1)),
    buckets=(BucketState("chat/caller/requests", "nightly", 4.5, 50.0),),
    breakers=(BreakerState("openai", "half-open", 21, 0.5, 0.25, 3.5),),
    retry_budgets=(RetryBudgetState("openai", 9.75),),
    upstreams=(UpstreamState("openai", 0.625, told=(ToldState("requests", 12.0, 60.0),)),),
    routes=(RouteState("chat", 4096, 0.75),),
    tools=(ToolState("github", "*", 5, 2.5, BreakerState("mcp", "open", 9, 1.0, 0.0, 0.25), 2),),
    store=StoreState(
        kind="redis",
        shown="redis://10.0.0.5:6379/0",
        phase="alone",
        why="out of reach for 3.1s (no answer in 50 ms): on its own share, 1/4",
        since_s=8.9,
        lost_s=12.0,
        moves_in_s=48.0,
        replicas=4,
        trips=90,
        missed=12,
        asks=450,
        buckets=3,
        caps=2,
        quotas=1,
    ),
    banner="The shared store is out of reach.",
)


class Told:
    """A telemetry that logs to memory, with clocks that stand still."""

    def __init__(self, state: GateState = EMPTY, *, lines_per_s: int = 10) -> None:
        self.out = io.StringIO()
        self.clock = ManualClock()
        self.wall = ManualClock(1_700_000_000.25)
        self.state = state
        self.halted: list[str] = []  # the runs that somebody asked to halt
        self.log = Log(self.out, clock=self.clock, wall=self.wall, lines_per_s=lines_per_s)
        self.telemetry = Telemetry(
            classes=CLASSES,
            state=lambda: self.state,
            connections=lambda: [(("openai", "in_use"), 7), (("openai", "idle"), 2)],
            tasks=lambda: 11,
            log=self.log,
            version="1.2.3",
            wall=self.wall,
        )
        self.emit = self.telemetry.emit

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.getvalue().splitlines()]

    def scrape(self) -> Scrape:
        return Scrape(self.telemetry.expose()[0].decode())


class Scrape:
    """The samples of one scrape: `get` one, or `total` those with the labels asked for."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def get(self, name: str, **labels: str) -> float | None:
        found = [s.value for s in self.samples if s.name == f"backpressure_{name}" and s.labels == labels]
        assert len(found) <= 1, f"{name} {labels} is exposed {len(found)} times"
        return found[0] if found else None

    def total(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == f"backpressure_{name}" and labels.items() <= sample.labels.items()
        )


def call(rank: int = 1, **fields: Any) -> Call:
    return Call(**{"route": "chat", "caller": "3fa9c1", "arrived_at": 0.0, "rank": rank, **fields})
