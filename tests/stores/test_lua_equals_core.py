"""The script says to Redis what `core/ledger.py` defines: to the same trips the same replies."""

from __future__ import annotations

from contextlib import AsyncExitStack
from random import Random

import pytest

from proxy.core.bucket_trade import UNKNOWN, BucketAsk
from proxy.core.cap_trade import CapAsk
from proxy.core.ledger import Ask, Ledger, Reply, Trip
from proxy.core.quota_trade import QuotaAsk
from proxy.stores.address import Address
from proxy.stores.redis import Link, StoreUnavailable
from proxy.stores.trips import SCRIPT, decode, encode
from tests.kit.redis import redis_server

EPOCH_S = 1_795_000_000.0
STORIES = 150
TRIPS = 60

BUCKETS = {"slow": (0.1, 5.0), "fast": (400.0, 40.0), "tokens": (3333.3, 20000.0), "one": (50.0, 1.0)}
CAPS = {"none": 0, "one": 1, "few": 7, "many": 100}
QUOTAS = {
    "hour": (10, 3600.0, False),
    "second": (3, 1.0, False),
    "tokens": (5_000_000, 60.0, False),
    "money": (25_000_000_000, 3600.0, True),
    "run": (50, 2.0, True),
}


def amount(chance: Random, most: float) -> float:
    """Zero often, else anything up to `most`, whole numbers among it."""
    return chance.choice((0.0, 0.0, chance.uniform(0.0, most), float(chance.randint(0, max(1, int(most))))))


def ask_for(chance: Random, kind: str, key: str, ends_at: float) -> Ask:
    if kind == "cap":
        keep, waiting = chance.randint(0, 4), chance.randint(0, 3)
        wanted = keep + chance.randint(0, 12)
        return CapAsk(CAPS[key], keep=keep, wanted=wanted, waiting=waiting, quick=chance.random() < 0.5)
    if kind == "quota":
        most, window_s, lasts = QUOTAS[key]
        back, need, left = (chance.randint(0, most) for _ in range(3))
        return QuotaAsk(
            most,
            window_s,
            back=back,
            over=chance.choice((0, 0, 0, chance.randint(1, 2 * most))),
            need=chance.choice((0, need)),
            left=chance.choice((-1, left)),
            ends_at=chance.choice((0.0, ends_at, ends_at)),
            lasts=lasts,
        )
    rate, burst = BUCKETS[key]
    return BucketAsk(
        rate,
        burst,
        keep=amount(chance, burst),
        hand=amount(chance, burst),
        back=amount(chance, burst) * chance.choice((1, 1, -1)),
        demand=amount(chance, 2 * rate),
        need=amount(chance, burst),
        room=amount(chance, burst),
        unit=chance.choice((1.0, amount(chance, burst))),
        left=chance.choice((UNKNOWN, amount(chance, burst))),
    )


def numbers(reply: Reply) -> list[float]:
    """All that a reply tells, in a row."""
    told: list[float] = [reply.seq, reply.replicas, reply.learning_s]
    told += [age_s for age_s, _ in reply.hints]
    for each in reply.told:
        told += [-99.0] if each is None else [float(getattr(each, name)) for name in sorted(each.__slots__)]
    return told


async def test_the_script_and_the_core_tell_the_same_for_any_trips_at_any_times() -> None:
    chance = Random(20261122)
    learnt = refused = passed_on = 0
    async with redis_server() as server, AsyncExitStack() as closing:
        link = Link(Address("redis", (("127.0.0.1", server.port),), timeout_s=5.0), SCRIPT)
        closing.push_async_callback(link.aclose)
        for story in range(STORIES):
            ledger, now, ends_at = Ledger(), EPOCH_S + chance.random(), 0.0
            counts = dict.fromkeys("abcd", 0)
            seqs = dict.fromkeys("abcd", 0)
            for _ in range(TRIPS):
                now += chance.choice((0.0, 1e-4, 0.05, 0.75, 2.9, 3.0, 60.0, 5000.0)) * chance.random()
                name = chance.choice("abcd")
                counts[name] += chance.choice((1, 1, 1, 1, 1, 1, 1, 0))
                kinds = [("bucket", key) for key in BUCKETS]
                kinds += [("cap", key) for key in CAPS] + [("quota", key) for key in QUOTAS]
                asks = [
                    (f"{kind}:{key}", ask_for(chance, kind, key, ends_at))
                    for kind, key in chance.sample(kinds, chance.randint(0, 4))
                ]
                trip = Trip(
                    name,
                    counts[name],
                    asks,
                    seq=seqs[name] + chance.choice((0, 0, 0, 0, 0, 0, 0, 0, 0, 50)),
                    safe=chance.random() < 0.1,
                    leaving=chance.random() < 0.05,
                    hint=chance.choice((b"", b"", b"%d \x00\xff" % chance.randrange(10**6))),
                )
                expected = ledger.trip(trip, now)
                raw = await link.call(*encode(trip, f"story{story}", now))
                if expected.stale:
                    refused += 1
                    with pytest.raises(StoreUnavailable, match="later trip"):
                        decode(raw, trip)
                    continue
                found = decode(raw, trip)
                if chance.random() < 0.9:  # else the reply was lost
                    seqs[name] = found.seq
                learnt += found.learning_s > 0
                passed_on += len(found.hints)
                assert [hint for _, hint in found.hints] == [hint for _, hint in expected.hints]
                assert numbers(found) == pytest.approx(numbers(expected), rel=1e-9, abs=1e-6), trip.asks
                for told in found.told:
                    ends_at = getattr(told, "ends_at", 0.0) or ends_at
    assert learnt > STORIES  # each began by learning
    assert refused > 0
    assert passed_on > STORIES
