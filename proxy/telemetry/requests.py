"""What requests are counted for before the gate has seen them, or though it never does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from prometheus_client import Metric

from proxy.telemetry import families
from proxy.telemetry.counts import Labels


class Requests:
    """By route, what was asked wrongly or again too soon. `_labels` are the routes and upstreams."""

    def __init__(self) -> None:
        self._labels = Labels()
        self._unknown_priority: defaultdict[str, int] = defaultdict(int)
        self._malformed: defaultdict[str, int] = defaultdict(int)
        self._held: defaultdict[str, int] = defaultdict(int)
        self._unknown_route = 0

    def held(self, route: str) -> None:
        """A call waits because it repeats at once one whose answer was cut."""
        self._held[self._labels.keep(route)] += 1

    def unknown_priority(self, route: str) -> None:
        """A call asked for a priority that is not configured and got the default."""
        self._unknown_priority[self._labels.keep(route)] += 1

    def unknown_route(self) -> None:
        """A request matched no route."""
        self._unknown_route += 1

    def malformed(self, route: str) -> None:
        """A request could not be read by its route's dialect."""
        self._malformed[self._labels.keep(route)] += 1

    def of_requests(self) -> Iterator[Metric]:
        """Their metrics."""
        yield families.by_label("unknown_priority_total", self._unknown_priority)
        yield families.counter("unknown_route_total", [((), self._unknown_route)])
        yield families.by_label("malformed_total", self._malformed)
        yield families.by_label("repeats_held_total", self._held)
