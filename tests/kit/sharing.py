"""Proxies that share a store: a real Redis, and a clock that a test may set forward."""

from __future__ import annotations

import time

from proxy.core.ledger import Trip
from proxy.stores.trips import SCRIPT, encode
from tests.kit.redis import RedisServer
from tests.kit.running import Running
from tests.kit.waiting import until


class Leaping:
    """Monotonic seconds, and whatever was leapt over."""

    def __init__(self) -> None:
        self.leapt_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.leapt_s


def leaping(running: Running) -> Leaping:
    """From now on the proxy's decisions follow a clock that a test may set forward."""
    clock, proxy = Leaping(), running.proxy
    proxy._clock = proxy._admission._clock = proxy._pipeline._clock = clock
    assert proxy._trips is not None
    proxy._trips._clock = clock
    return clock


async def until_it_is(running: Running, phase: str) -> None:
    store = running.proxy._trips
    assert store is not None
    await until(lambda: store.contact.phase == phase)


async def in_use_for_long(redis: RedisServer) -> None:
    """A replica was there ten seconds ago: the first of ours need not wait until the store has learnt."""
    now, _ = await redis.command("TIME")
    keys, args = encode(Trip("before", 1, []), "backpressure", float(now) - 10.0)
    await redis.command("EVAL", SCRIPT, len(keys), *keys, *args)
