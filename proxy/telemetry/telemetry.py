"""`Telemetry`: what the rest of the proxy reports to, and what the control plane shows."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry, Metric, ProcessCollector

from proxy import __version__
from proxy.core.call import Call
from proxy.core.events import (
    Admitted,
    BreakerMoved,
    CapMoved,
    Event,
    Left,
    PauseMoved,
    Queued,
    Refused,
    Returned,
    Settled,
    StoreMoved,
    WouldQueue,
    WouldRefuse,
)
from proxy.core.state import GateState
from proxy.core.survey import OTHERS
from proxy.core.used import Used
from proxy.core.verdict import FAILED, UNUSED, End, Outcome, Reason
from proxy.telemetry import exposition, families
from proxy.telemetry.counts import (
    SCOPES,
    TRIP_BOUNDS_S,
    Flow,
    Flows,
    Histogram,
    Kept,
    Labels,
    Tokens,
    ToolMoves,
)
from proxy.telemetry.families import Row
from proxy.telemetry.log import Log
from proxy.telemetry.requests import Requests
from proxy.telemetry.spending import Spending

LONGEST_WAIT_S: Final = 3600.0
"""No queue holds a call for an hour. Who is remembered for longer must not be remembered for ever."""


class Telemetry(Requests):
    """Counts what happened and tells it. Nothing here awaits, and nothing raises for what it is told.

    `emit` is the core's `Emit`. `state`, `connections` (by upstream and what they do) and `tasks`
    are asked once for every scrape. `classes` names the priorities by rank; call `reclassify` when a reload
    changed them. Counters never fall and survive a reload.

    At any instant, for each route and priority: offered = admitted + refused + left + waiting, and
    settled = admitted - in flight. (By upstream only without fallbacks: who waited for one upstream may be
    admitted to another.)
    """

    def __init__(
        self,
        *,
        classes: tuple[str, ...],
        state: Callable[[], GateState],
        connections: Callable[[], Iterable[Row]] = tuple,
        tasks: Callable[[], int] = int,
        log: Log | None = None,
        version: str = __version__,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._state = state
        self._connections = connections
        self._tasks = tasks
        self._log = log
        self._version = version
        self._wall = wall
        self._flows = Flows(classes)
        self._waiting: dict[Call, Flow] = {}  # by the time they were queued, oldest first
        self._cap_labels, self._bucket_labels = Labels(), Labels()
        self._tokens: dict[str, Tokens] = {}  # by route
        self.spending = Spending()
        self._retries: defaultdict[tuple[str, ...], int] = defaultdict(int)
        self._ended: dict[str, int] = dict.fromkeys(End, 0)
        self._crashes = 0
        self._breaker_moves: defaultdict[tuple[str, ...], int] = defaultdict(int)
        self._tool_moves = ToolMoves()
        self._cap_moves: defaultdict[tuple[str, ...], int] = defaultdict(int)
        self._store_moves: defaultdict[str, int] = defaultdict(int)  # by phase
        self._trips = Histogram(TRIP_BOUNDS_S)
        self._kept: defaultdict[str, Kept] = defaultdict(Kept)  # by route
        self._reloads = {"ok": 0, "failed": 0}
        self._reloaded_at: dict[str, float] = {}
        self._on: dict[type[Event], Callable[[Any], None]] = {
            Admitted: self._admitted,
            Settled: self._settled,
            Refused: self._refused,
            Queued: self._queued,
            Left: self._left,
            WouldRefuse: self._would_refuse,
            WouldQueue: self._would_queue,
            Returned: self._returned,
            BreakerMoved: self._breaker_moved,
            CapMoved: self._cap_moved,
            PauseMoved: self._pause_moved,
            StoreMoved: self._store_moved,
        }
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def emit(self, event: Event) -> None:
        """Count one event of the core."""
        self._on[type(event)](event)

    def relayed(
        self,
        call: Call,
        upstream: str,
        *,
        outcome: Outcome,
        status: int | None,
        total_s: float,
        first_byte_s: float | None = None,
        reason: Reason | None = None,
        detail: str = "",
    ) -> None:
        """A call that was sent upstream ended. A failed one is logged.

        `status` is the upstream's, None when it gave none; `first_byte_s` counts from dispatch, `total_s`
        from the call's arrival. `reason` tells a timeout from another failure; `detail` is for the log.
        """
        flow = self._flows[call.route, call.rank, upstream]
        flow.answers[status // 100 if status else 0] += 1
        flow.call_time.observe(total_s)
        if first_byte_s is not None:
            flow.first_byte.observe(first_byte_s)
        if outcome is FAILED:
            why = reason or Reason.UPSTREAM_FAILED
            flow.failures[why] += 1
            if self._log:
                self._log.failed(
                    call, flow.names[1], upstream, why, status=status, took_s=total_s, detail=detail
                )

    def retried(self, route: str, result: str) -> None:
        """A call that failed was to be sent once more by us: what came of it.

        An outcome, or `refused` (by the gate), `left` (its caller did) or `given_up` (it was in vain).
        """
        self._retries[(self._labels.keep(route), result)] += 1

    def tokens(self, route: str, estimated: float, used: Used) -> None:
        """A call whose tokens are counted has ended."""
        tokens = self._tokens.get(route)
        if tokens is None:
            tokens = self._tokens.setdefault(self._labels.keep(route), Tokens())
        tokens.add(estimated, used)

    def kept_shares(self) -> dict[str, float]:
        """By route, the share of the last promises that were kept; without those that made none."""
        return {route: kept.share for route, kept in self._kept.items()}

    def connection_ended(self, why: End) -> None:
        """We ended a caller's connection, and not after its last answer."""
        self._ended[why] += 1

    def trip_answered(self, took_s: float) -> None:
        """A trip to the shared store had its answer."""
        self._trips.observe(took_s)

    def crashed(self, error: BaseException) -> None:
        """A call ended by a defect of the proxy itself."""
        self._crashes += 1
        if self._log:
            self._log.crashed(error)

    def reloaded(self, ok: bool, problems: str = "") -> None:
        """A reload took effect, or failed with `problems` and left the old configuration serving."""
        result = "ok" if ok else "failed"
        self._reloads[result] += 1
        self._reloaded_at[result] = self._wall()
        if self._log:
            self._log.reloaded(ok, problems)

    def reclassify(self, classes: tuple[str, ...]) -> None:
        """Ranks mean these classes from now on."""
        self._flows.reclassify(classes)

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics and their content type: Prometheus text, or OpenMetrics if `accept` asks for it."""
        pieces, content_type = self.pieces(accept)
        return b"".join(pieces), content_type

    def pieces(self, accept: str = "") -> tuple[Iterator[bytes], str]:
        """The same, metric by metric: all of one instant, now; each encoded when it is asked for."""
        return exposition.pieces(self.registry, accept)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry once a scrape."""
        yield from families.of_flows(self._flows)
        state = self._state()
        yield from families.of_state(state, self._cap_labels, self._bucket_labels)
        yield from families.of_tools(state.tools, self._tool_moves.items())
        if state.store is not None:
            yield from families.of_store(state.store, self._store_moves, self._trips)
        yield families.gauge("upstream_connections", self._connections())
        yield families.gauge("tasks", [((), self._tasks())])
        yield families.counter("breaker_moves_total", self._breaker_moves.items())
        yield families.counter("cap_moves_total", self._cap_moves.items())
        yield families.by_label("config_reloads_total", self._reloads)
        yield families.by_label("config_reload_timestamp_seconds", self._reloaded_at)
        yield from self.of_requests()
        yield families.counter("crashes_total", [((), self._crashes)])
        yield families.counter("retries_total", self._retries.items())
        yield from families.of_tokens(self._tokens)
        yield from self.spending.collect()
        yield families.by_label("connections_ended_total", self._ended)
        yield families.counter("log_lines_suppressed_total", [((), self._log.suppressed if self._log else 0)])
        yield families.counter("log_lines_lost_total", [((), self._log.lost if self._log else 0)])
        yield families.by_label("build_info", {self._version: 1})

    def _queued(self, event: Queued) -> None:
        call = event.call
        flow = self._flows[call.route, call.rank, event.upstream]
        flow.offered += 1
        self._waiting[call] = flow
        self._forget_lost(call.arrived_at - LONGEST_WAIT_S)

    def _admitted(self, event: Admitted) -> None:
        call, waited_s, waiting = event.call, event.waited_s, self._waiting
        flow = self._flows[call.route, call.rank, event.upstream]
        flow.admitted += 1
        if waited_s:
            flow.age_at_dispatch.observe(waited_s)
        else:
            flow.age_at_dispatch.cells[0] += 1  # the same at a third of the price, for nearly every call
        if waiting and call in waiting:
            del waiting[call]
            flow.queue_time.observe(waited_s)
        else:
            flow.offered += 1

    def _refused(self, event: Refused) -> None:
        call, refusal, waiting = event.call, event.refusal, self._waiting
        flow = self._flows[call.route, call.rank, event.upstream]
        flow.refused[(refusal.reason, _kind_of(refusal.scope))] += 1
        if waiting and call in waiting:
            del waiting[call]
            flow.queue_time.observe(event.waited_s)
        else:
            flow.offered += 1
        if self._log:
            self._log.refused(call, flow.names[1], refusal, event.upstream, event.waited_s)

    def _would_refuse(self, event: WouldRefuse) -> None:
        call = event.call
        flow = self._flows[call.route, call.rank, event.upstream]
        flow.would_refuse[(event.reason, _kind_of(event.scope))] += 1
        if self._log:
            self._log.rehearsed("would_refuse", event, flow.names[1])

    def _would_queue(self, event: WouldQueue) -> None:
        call = event.call
        flow = self._flows[call.route, call.rank, event.upstream]
        flow.would_queue[(event.reason, _kind_of(event.scope))] += 1
        if self._log:
            self._log.rehearsed("would_queue", event, flow.names[1])

    def _returned(self, event: Returned) -> None:
        call = event.call
        flow = self._flows[call.route, call.rank, event.upstream]
        if event.admitted:
            flow.kept += 1
        else:
            flow.broken += 1
        self._kept[flow.names[0]].add(kept=event.admitted)

    def _left(self, event: Left) -> None:
        call = event.call
        flow = self._flows[call.route, call.rank, event.upstream]
        flow.left += 1
        if call in self._waiting:
            del self._waiting[call]
            flow.queue_time.observe(event.waited_s)
        else:
            flow.offered += 1

    def _forget_lost(self, before: float) -> None:
        """Count as left whoever was queued and arrived `before`: its end was never told, and now is past."""
        waiting = self._waiting
        while (oldest := next(iter(waiting))).arrived_at < before:
            waiting.pop(oldest).left += 1

    def _settled(self, event: Settled) -> None:
        call = event.call
        flow = self._flows[call.route, call.rank, event.upstream]
        flow.settled[event.outcome] += 1
        if event.outcome is not UNUSED:
            flow.upstream_time.observe(event.upstream_s)

    def _pause_moved(self, event: PauseMoved) -> None:
        if self._log:
            self._log.pause_moved(event)

    def _cap_moved(self, event: CapMoved) -> None:
        self._cap_moves[(self._labels.keep(event.upstream), event.why)] += 1
        if self._log:
            self._log.cap_moved(event)

    def _breaker_moved(self, event: BreakerMoved) -> None:
        if event.scope:
            self._tool_moves.add(event.scope, event.new)
        else:
            self._breaker_moves[(self._labels.keep(event.upstream), event.new)] += 1
        if self._log:
            self._log.breaker_moved(event)

    def _store_moved(self, event: StoreMoved) -> None:
        self._store_moves[event.new] += 1
        if self._log:
            self._log.store_moved(event)


def _kind_of(scope: str) -> str:
    """What a scope is, such as `caller`: the label of a metric, where its name would be one too many."""
    kind = scope.partition(":")[0]
    return kind if kind in SCOPES else OTHERS
