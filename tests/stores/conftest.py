from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from proxy.core.bucket_trade import AT_ONCE_S
from proxy.core.claims import Claims, Shortfall, Store
from proxy.core.ledger import Ledger
from proxy.core.policy import BucketPolicy
from proxy.core.used import Used
from proxy.stores.contact import Contact
from proxy.stores.holdings import Holdings
from proxy.stores.memory import MemoryStore
from proxy.stores.shared import SharedStore

EPOCH_S = 1_795_000_000.0


class AtOnce(SharedStore):
    """A replica alone with its ledger, to which a trip takes no time: its slices hide nothing."""

    def __init__(self) -> None:
        contact = Contact(safe_for_s=60.0, timeout_s=0.05, chance=lambda: 0.5)
        super().__init__(Holdings("only", contact))
        self._ledger = Ledger()
        self._trip(-10.0)  # it learns that there is nothing to know
        self._trip(-5.0)

    def reserve(self, claims: Claims, now: float) -> Shortfall | None:
        self.asked(claims, now)
        self._trip(now)
        shortfall = super().reserve(claims, now)
        while shortfall is not None and shortfall.pending:
            self._trip(now)
            shortfall = super().reserve(claims, now)
        self.holdings.put_back()
        return shortfall

    def peek(self, claims: Claims, now: float) -> Shortfall | None:
        self._trip(now)
        shortfall = super().peek(claims, now)
        return None if shortfall is not None and shortfall.pending else shortfall

    def settle(self, claims: Claims, now: float, *, unused: bool, used: Used | None = None) -> None:
        super().settle(claims, now, unused=unused, used=used)
        self.holdings._turn_at = now
        self._trip(now)

    def level(self, key: str, policy: BucketPolicy, now: float) -> float:
        self._trip(now)
        return super().level(key, policy, now)

    def _trip(self, now: float) -> None:
        while self.holdings.due_at(now) <= now or not self.contact.is_calm:
            self.holdings.unpack(self._ledger.trip(self.holdings.pack(now), now + EPOCH_S), now)
            if not self.contact.is_calm:
                return


STORES: dict[str, Callable[[], Store]] = {"memory": MemoryStore, "shared": AtOnce}
"""Every store that keeps the contract of `core/claims.py`: another one is another row here."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What waits for a network runs on both event loops: uvloop, which serves, and asyncio's own."""
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


def later(store: Store, at: float) -> float:
    """When what refills by `at` is to be had: tokens fetched to be spent at once count for a moment more."""
    return at + AT_ONCE_S if isinstance(store, AtOnce) else at


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest) -> Store:
    """An empty store of each kind."""
    return STORES[request.param]()
