from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.core.claims import Store
from proxy.stores.memory import MemoryStore

STORES: dict[str, Callable[[], Store]] = {"memory": MemoryStore}
"""Every store that keeps the contract of `core/claims.py`: another one is another row here."""


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest) -> Store:
    """An empty store of each kind."""
    return STORES[request.param]()
