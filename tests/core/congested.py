"""Upstreams that slow down in their own ways when too many calls are in flight, and a loop that keeps the
cap of a `Learner` full, on a clock of its own. Times in seconds, chance by seed.
"""

from __future__ import annotations

import heapq
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from proxy.core.adaptive import Learner
from proxy.core.policy import AdaptivePolicy
from proxy.core.verdict import OVERLOADED, SUCCEEDED

SERVICE_S = 0.1
SIGMA = 0.5
DEFAULT = AdaptivePolicy(4, 16, 256)


class Job:
    """One call: when it was granted, when its answer began (None: refused), what it is worth."""

    def __init__(self, at: float, number: int) -> None:
        self.at = at
        self.number = number
        self.first_at: float | None = None
        self.worth = 1.0

    def __lt__(self, other: Job) -> bool:
        return self.number < other.number


class Upstream(ABC):
    """`end` is the next instant at which a call ends, inf without one; `pop` ends it."""

    def __init__(self, seed: int, best: float) -> None:
        self.chance = Random(seed)
        self.best = best
        self.in_flight = 0

    def service_s(self) -> float:
        return SERVICE_S * math.exp(self.chance.gauss(-SIGMA * SIGMA / 2, SIGMA))

    @abstractmethod
    def begin(self, job: Job) -> None: ...
    @abstractmethod
    def end(self) -> float: ...
    @abstractmethod
    def pop(self) -> Job: ...


class Fixed(Upstream):
    """So many slots, and a queue before them: more calls in flight only wait longer."""

    def __init__(self, seed: int, best: float = 32) -> None:
        super().__init__(seed, best)
        self.slower = 1.0
        self._serving: list[tuple[float, Job]] = []
        self._queue: deque[Job] = deque()

    def begin(self, job: Job) -> None:
        self.in_flight += 1
        self._queue.append(job)
        self._fill(job.at)

    def end(self) -> float:
        return self._serving[0][0] if self._serving else math.inf

    def pop(self) -> Job:
        now, job = heapq.heappop(self._serving)
        self.in_flight -= 1
        self._fill(now)
        job.first_at = now
        return job

    def _fill(self, now: float) -> None:
        while self._queue and len(self._serving) < self.best:
            heapq.heappush(self._serving, (now + self.service_s() * self.slower, self._queue.popleft()))


class Knee(Upstream):
    """More than the best number in flight slow each other down: throughput falls."""

    def __init__(self, seed: int, best: float = 32) -> None:
        super().__init__(seed, best)
        self.slower = 1.0
        self._work: list[tuple[float, Job]] = []
        self._done = self._at = 0.0

    def begin(self, job: Job) -> None:
        self._pass(job.at)
        self.in_flight += 1
        heapq.heappush(self._work, (self._done + self.service_s(), job))

    def end(self) -> float:
        return self._at + (self._work[0][0] - self._done) * self._pace() if self._work else math.inf

    def pop(self) -> Job:
        now = self.end()
        self._pass(now)
        self.in_flight -= 1
        _, job = heapq.heappop(self._work)
        job.first_at = now
        return job

    def _pace(self) -> float:
        over = max(0.0, self.in_flight - self.best) * 32 / self.best
        return self.slower * (1 + over / 32 + over * over / 768)

    def _pass(self, now: float) -> None:
        self._done += (now - self._at) / self._pace()
        self._at = now


class Even(Knee):
    """All calls are the same work, but for a hundredth."""

    def service_s(self) -> float:
        return SERVICE_S * self.chance.uniform(0.995, 1.005)


class Refusing(Fixed):
    """So many slots, and 429 at once for whoever comes beyond."""

    def begin(self, job: Job) -> None:
        self.in_flight += 1
        served = sum(1 for _, each in self._serving if each.worth) < self.best
        job.worth = float(served)
        heapq.heappush(self._serving, (job.at + (self.service_s() if served else 0.005), job))

    def pop(self) -> Job:
        now, job = heapq.heappop(self._serving)
        self.in_flight -= 1
        job.first_at = now if job.worth else None
        return job


class Model(Knee):
    """64 sequences: prompts are read one after the other, tokens come the slower the more there are.

    One prompt of so many (`every`, 0: none) takes `stall_s` to read; each begins `late_s` after it is read.
    """

    def __init__(self, seed: int, every: int = 0, stall_s: float = 0.0) -> None:
        super().__init__(seed, 64)
        self.late_s = 0.0
        self._every, self._stall_s = every, stall_s
        self._read_at = 0.0
        self._reading: deque[tuple[float, Job]] = deque()
        self._queue: deque[Job] = deque()

    def begin(self, job: Job) -> None:
        self.in_flight += 1
        job.worth = math.exp(self.chance.gauss(math.log(250), 1.19))
        self._queue.append(job)
        self._admit(job.at)

    def end(self) -> float:
        return min(super().end(), self._reading[0][0] if self._reading else math.inf)

    def pop(self) -> Job:
        now = self.end()
        while self._reading and self._reading[0][0] <= now:
            self._pass(now)
            _, job = self._reading.popleft()
            job.first_at = now
            heapq.heappush(self._work, (self._done + job.worth, job))
            now = self.end()
        self._pass(now)
        self.in_flight -= 1
        _, job = heapq.heappop(self._work)
        self._admit(now)
        return job

    def _admit(self, now: float) -> None:
        while self._queue and len(self._work) + len(self._reading) < 64:
            tokens = math.exp(self.chance.gauss(math.log(1000), 1.46))
            job = self._queue.popleft()
            long_s = self._stall_s if self._every and job.number % self._every == 0 else 0.0
            self._read_at = max(self._read_at, now) + 0.05 + tokens / 20_000 + long_s
            self._reading.append((self._read_at + self.late_s, job))

    def _pace(self) -> float:
        return 0.02 + 0.04 * min(1.0, max(0.0, (len(self._work) - 16) / 48))


Change = tuple[float, Callable[[], None]]


class Loop:
    """What came of it: `worth` done, by second, and the cap at the end of each second."""

    def __init__(self, upstream: Upstream, policy: AdaptivePolicy = DEFAULT) -> None:
        self.upstream = upstream
        self.learner = Learner(policy)
        self.worth: list[float] = []
        self.caps: list[float] = []  # averages over the second
        self.whys: list[str] = []

    def run(self, seconds: int, changes: Sequence[Change] = (), offered: float | None = None) -> Loop:
        """Always somebody waits; or, `offered` calls a second come at random."""
        learner, upstream, numbers = self.learner, self.upstream, iter(range(10**9))
        self.worth, sums = [0.0] * seconds, [[0.0, 0.0] for _ in range(seconds)]
        due, now, waiting, arrival = list(changes), 0.0, 0, 0.0
        while now < seconds:
            while upstream.in_flight < learner.slots and (offered is None or waiting):
                waiting -= 1
                learner.enter(upstream.in_flight + 1, 0, now)
                upstream.begin(Job(now, next(numbers)))
            if due and due[0][0] <= now:
                due.pop(0)[1]()
            if offered is not None and arrival <= upstream.end():
                now, waiting = arrival, max(0, waiting) + 1
                arrival = now + upstream.chance.expovariate(offered)
                continue
            was, now = learner.slots, upstream.end()
            job = upstream.pop()
            if now >= seconds:
                break
            sums[int(now)][0] += was
            sums[int(now)][1] += 1
            self.worth[int(now)] += job.worth
            good = job.first_at is not None
            if job.first_at is not None:
                self._note(learner.answered(job.at, job.first_at - job.at, 0.0, now))
            self._note(learner.settle(job.at, SUCCEEDED if good else OVERLOADED, now, answered=good))
        self.caps = [total / max(1, count) for total, count in sums]
        return self

    def _note(self, why: str) -> None:
        if why:
            self.whys.append(why)

    def rate(self, since: int, until: int | None = None) -> float:
        """Worth done in a second, on average."""
        done = self.worth[since:until]
        return sum(done) / len(done)

    def cap(self, since: int, until: int | None = None) -> float:
        """The cap, on average."""
        seen = [cap for cap in self.caps[since:until] if cap]
        return sum(seen) / len(seen)
