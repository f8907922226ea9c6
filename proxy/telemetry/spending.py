"""What calls cost in money, by where they went. Never by who asked: callers are without end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from prometheus_client import Metric

from proxy.core.prices import MICRO
from proxy.telemetry import families
from proxy.telemetry.counts import Labels


class Spending:
    """Counts money in millionths of the currency's unit, and shows it in units."""

    def __init__(self) -> None:
        self._labels = Labels()
        self._spent: defaultdict[tuple[str, ...], int] = defaultdict(int)  # by route, upstream, currency
        self._unpriced: defaultdict[str, int] = defaultdict(int)  # by route

    def paid(self, route: str, upstream: str, currency: str, cost: int | None) -> None:
        """A call that costs tokens was relayed: what it cost; None: its model has no price."""
        keep = self._labels.keep
        if cost is None:
            self._unpriced[keep(route)] += 1
        else:
            self._spent[(keep(route), keep(upstream), currency)] += cost

    def collect(self) -> Iterator[Metric]:
        """Its families, for one scrape."""
        spent = [(names, micro / MICRO) for names, micro in self._spent.items()]
        yield families.counter("money_spent_total", spent)
        yield families.by_label("unpriced_calls_total", self._unpriced)
