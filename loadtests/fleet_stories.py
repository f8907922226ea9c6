"""What is offered to a fleet in virtual time: calls of one bucket, or under one cap."""

from __future__ import annotations

from random import Random
from typing import Final

from loadtests.fleet import Fleet, Replica, claims
from proxy.core.cap import Cap
from proxy.core.policy import BucketPolicy, Per

JOINED_S: Final = 4.0
"""By then all have joined, and the ledger has learnt that there was nothing to know."""


class _Story:
    """Calls that come at random instants, dealt to the replicas: to the first `skew` times as many.

    `spared` gets none.
    """

    def __init__(self, *, replicas: int, every_s: float, skew: int, seed: int) -> None:
        self.fleet = Fleet(Random(seed))
        self.spared: Replica | None = None
        self._every_s = every_s
        self._skew = skew
        for _ in range(replicas):
            self.fleet.join()
        self.fleet.at(JOINED_S, self._arrive)

    def _arrive(self) -> None:
        fleet, chance = self.fleet, self.fleet.chance
        living = [each for each in fleet.replicas if each.alive and each is not self.spared]
        weights = [self._skew if replica is fleet.replicas[0] else 1 for replica in living]
        self._offer(chance.choices(living, weights)[0])
        fleet.at(fleet.now + chance.expovariate(1.0 / self._every_s), self._arrive)

    def _offer(self, replica: Replica) -> None:
        raise NotImplementedError


class Buckets(_Story):
    """Calls of one shared bucket."""

    def __init__(
        self, *, rate: float, burst: float, replicas: int, load: float, skew: int = 1, seed: int = 1
    ) -> None:
        super().__init__(replicas=replicas, every_s=1.0 / (rate * load), skew=skew, seed=seed)
        self.policy = BucketPolicy("b", Per.ROUTE, rate, burst, "")
        self.calls = 0

    def _offer(self, replica: Replica) -> None:
        self.calls += 1
        replica.offer(claims(buckets=(("b|all", self.policy),)))

    @property
    def over(self) -> float:
        return self.fleet.over("b|all", self.policy.rate_per_s, self.policy.burst)

    def used(self, since: float, until: float) -> float:
        """The share of the limit that was in use."""
        return self.fleet.total("b|all", since, until) / (self.policy.rate_per_s * (until - since))

    @property
    def trips(self) -> int:
        return sum(replica.trips for replica in self.fleet.replicas)


class Caps(_Story):
    """Calls under one shared cap, each of which holds its permit for about `service_s`."""

    def __init__(
        self,
        *,
        slots: int,
        replicas: int,
        load: float,
        skew: int = 1,
        service_s: float = 0.1,
        longest_s: float = 60.0,
        seed: int = 1,
    ) -> None:
        super().__init__(replicas=replicas, every_s=service_s / (slots * load), skew=skew, seed=seed)
        self._service_s = service_s
        self.slots = slots
        self.most = 0
        self.used_s = 0.0  # permits times seconds, from 10 s on
        self._longest_s = longest_s
        self._in_flight = 0
        self._at = 0.0

    def _offer(self, replica: Replica) -> None:
        fleet = self.fleet
        asked = claims(caps=(Cap("c", self.slots, self.slots),))

        def ends() -> None:
            self._count(-1)
            replica.settle(asked)
            replica.look()

        def begins() -> None:
            self._count(1)
            fleet.at(fleet.now + min(self._longest_s, fleet.chance.expovariate(1.0 / self._service_s)), ends)

        replica.offer(asked, begins, patience_s=2.0)

    def _count(self, by: int) -> None:
        if self.fleet.now > 10.0:
            self.used_s += self._in_flight * (self.fleet.now - max(10.0, self._at))
        self._at = self.fleet.now
        self._in_flight += by
        self.most = max(self.most, self._in_flight)
