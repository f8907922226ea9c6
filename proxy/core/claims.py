"""What a call asks for, what it lacks, and the port to whoever keeps the counts (`stores/`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import ceil
from typing import Any, Final

from proxy.core.cap import Cap
from proxy.core.policy import MONEY, REQUESTS, BucketPolicy, OnStoreFailure, Per, QuotaPolicy
from proxy.core.prices import Price
from proxy.core.rounding import NEVER
from proxy.core.used import Estimate, Used
from proxy.core.verdict import Reason

CALLER: Final = "caller:"
"""How the key of a cap begins that holds for one caller."""

TOOL: Final = "tool:"
"""How the key of a cap begins that holds for one tool of a route."""

RUN: Final = "run:"
"""How the key of a cap begins that holds for one run."""

SHARE: Final = OnStoreFailure.SHARE

Keys = tuple[str, ...]
Sharing = tuple[Keys, Keys, Keys, Keys]


class Claims:
    """All that one call needs at once: granted together or not at all.

    Each claim pairs the key of the count (`chat/caller/requests|3fa9c1`) with the policy it must satisfy.
    A claim costs one request; of a bucket or quota that counts tokens `tokens`, or the part of its `estimate`
    that it counts; of a quota in money `money`, which is that estimate by the `price` of its model. A cap's
    permit is held until the lease is settled. `receipt` belongs to the store: what
    it notes at `reserve` to be able to undo it at `settle`. `dry` are the claims in dry run (`dry_run.py`),
    which keep nobody out; None: there are none, or they were not to be had. `on_store_failure` is the route's
    word for when a shared store is out of reach.
    """

    __slots__ = (
        "buckets", "caps", "dry", "estimate", "money", "on_store_failure", "price", "quotas", "receipt",
        "sharing", "tokens",
    )  # fmt: skip

    def __init__(
        self,
        caps: list[tuple[str, Cap]],
        buckets: list[tuple[str, BucketPolicy]],
        quotas: list[tuple[str, QuotaPolicy]],
        tokens: float = 0.0,
        sharing: Sharing | None = None,
        estimate: Estimate | None = None,
        money: int = 0,
        price: Price | None = None,
    ) -> None:
        self.caps = caps
        self.buckets = buckets
        self.quotas = quotas
        self.tokens = tokens
        self.estimate = estimate
        self.sharing = sharing
        self.money = money
        self.price = price
        self.receipt: Any = None
        self.dry: Claims | None = None
        self.on_store_failure = SHARE

    def cost(self, policy: BucketPolicy) -> float:
        """What the call costs of a bucket, in the bucket's unit."""
        if policy.unit is REQUESTS:
            return 1.0
        return self.tokens if self.estimate is None else self.estimate.cost(policy.unit, policy.burst)

    def quota_cost(self, policy: QuotaPolicy) -> int:
        """What the call costs of a quota, in the quota's unit; whole, as all that quotas count.

        As of a bucket, it is more than the quota holds only where that is certain.
        """
        if policy.unit is REQUESTS:
            return 1
        estimate = self.estimate
        if policy.unit is not MONEY:
            return ceil(self.tokens if estimate is None else estimate.cost(policy.unit, policy.amount))
        if self.money > policy.amount and estimate is not None and self.price is not None:
            sure = self.price.cost(estimate.sure_input, estimate.sure_output)
            return policy.amount if sure <= policy.amount else self.money
        return self.money

    def quota_over(self, policy: QuotaPolicy, used: Used) -> int:
        """What the call used of a quota beyond what was reserved; below 0: so much less."""
        if policy.unit is REQUESTS:
            return 0
        if policy.unit is not MONEY:
            return ceil(used.of(policy.unit)) - self.quota_cost(policy)
        return 0 if self.price is None else self.price.cost_of(used) - self.quota_cost(policy)

    def counts_tokens(self, key: str) -> bool:
        """Does what is counted under this key depend on the tokens of a call?"""
        for name, policy in self.buckets:
            if name == key:
                return policy.unit is not REQUESTS
        return any(name == key and quota.unit is not REQUESTS for name, quota in self.quotas)

    def token_keys(self) -> list[str]:
        """The keys of which each call asks another amount: what one lacks another may find."""
        if not self.tokens:
            return []
        keys = [key for key, policy in self.buckets if policy.unit is not REQUESTS]
        return keys + [key for key, quota in self.quotas if quota.unit is not REQUESTS]

    def keys(self) -> list[str]:
        """Every key asked for."""
        return [key for key, _ in (*self.caps, *self.buckets, *self.quotas)]

    def come_back(self, *, unused: bool, used: Used | None) -> list[str]:
        """The keys under which there is room again, once the call was settled so."""
        if unused:
            return self.keys()
        keys = [key for key, _ in self.caps]
        return keys if used is None else keys + self.token_keys()

    def keys_by_sharing(self) -> Sharing:
        """The same keys in four: those that many share, those of one tool, of one caller, of one run."""
        if self.sharing is None:
            shared: list[str] = []
            tools: list[str] = []
            callers: list[str] = []
            runs: list[str] = []
            for key, _ in self.caps:
                if key.startswith(RUN):
                    runs.append(key)
                    continue
                (tools if key.startswith(TOOL) else callers if key.startswith(CALLER) else shared).append(key)
            rows: list[tuple[str, Per]] = [(key, policy.per) for key, policy in self.buckets]
            rows += [(key, policy.per) for key, policy in self.quotas]
            for key, per in rows:
                if per is Per.CALLER:
                    callers.append(key)
                elif per is Per.RUN:
                    runs.append(key)
                else:
                    (tools if per is Per.TOOL else shared).append(key)
            self.sharing = (tuple(shared), tuple(tools), tuple(callers), tuple(runs))
        return self.sharing


class Shortfall:
    """What a reserve lacked. Nothing was spent.

    `key` is the claim to wait for: a full cap before an empty bucket, and of several buckets the last to
    refill; but before all what can never hold so much, or is spent for good (`is_final`). `wait_s` is the
    time until *every* bucket and quota asked for would do; 0.0 when only caps were full, for nobody knows
    when a permit returns. `step_s` is how much later one more call in line would go. Of a full cap, `slots`
    is how many permits it has. `kept`: it is there, but not for this one; after `look_s` it may be, if whom
    it is kept for has not come. `pending`: a store that is far away has been asked, and answers in a moment.
    `part` of what refills is this process's just now: by that its seconds are counted.
    """

    __slots__ = ("kept", "key", "label", "look_s", "part", "pending", "reason", "slots", "step_s", "wait_s")

    def __init__(
        self,
        key: str,
        reason: Reason,
        wait_s: float,
        step_s: float,
        label: str,
        slots: int = 0,
        kept: bool = False,
        pending: bool = False,
        look_s: float = NEVER,
        part: float = 1.0,
    ) -> None:
        self.look_s = look_s
        self.part = part
        self.key = key
        self.reason = reason
        self.wait_s = wait_s
        self.step_s = step_s
        self.label = label
        self.slots = slots
        self.kept = kept
        self.pending = pending

    @property
    def is_final(self) -> bool:
        """Is there no time at which it could be had?"""
        return self.reason is Reason.TOO_DEAR or self.reason is Reason.RUN_BUDGET_SPENT

    def ready_at(self, now: float) -> float:
        """When it is worth trying again; inf for a cap: at a settle, whenever that is; or at an answer."""
        if self.pending or self.reason is Reason.CAP_REACHED:
            return NEVER
        return now + min(self.wait_s, self.look_s)


def never(key: str, quota: QuotaPolicy, cost: int) -> Shortfall:
    """Of a quota that can never hold so much, or of a run's that is spent."""
    if cost > max(1, quota.amount):  # a single call is not too dear for a count of calls
        return Shortfall(key, Reason.TOO_DEAR, NEVER, 0.0, quota.label)
    return Shortfall(key, Reason.RUN_BUDGET_SPENT, NEVER, 0.0, quota.label)


def is_own(key: str) -> bool:
    """Does a cap hold for one caller or run alone, so that what it wants is taken from nobody else?"""
    return key.startswith((CALLER, RUN))


def longer(one: Shortfall, other: Shortfall | None) -> Shortfall:
    """The one of two to wait for; of two that end at once the first."""
    return one if other is None or one.wait_s >= other.wait_s else other


def scope_of(shortfall: Shortfall) -> str:
    """The thing that had no room, as a refusal names it."""
    if shortfall.reason is Reason.CAP_REACHED:
        return shortfall.key
    return shortfall.key.partition("|")[2]


class Store(ABC):
    """Where the counts live. Synchronous: a store that is far away keeps a slice of the counts here."""

    @abstractmethod
    def reserve(self, claims: Claims, now: float) -> Shortfall | None:
        """Grant every claim (None) or none of them (what was lacking)."""
        ...

    @abstractmethod
    def peek(self, claims: Claims, now: float) -> Shortfall | None:
        """What `reserve` would answer. Spends nothing."""
        ...

    @abstractmethod
    def settle(self, claims: Claims, now: float, *, unused: bool, used: Used | None = None) -> None:
        """Return the permits; if the grant was not used, also what was spent and has not refilled since.

        `used` trues the estimate up, None lets it stand: what was reserved too much is given back in
        the same way, and what was used beyond it is spent now, whether there is room or not. Call exactly
        once for each grant, with the very claims that were reserved.
        """
        ...

    @abstractmethod
    def in_flight(self, key: str) -> int:
        """Permits held under one cap."""
        ...

    def asked(self, claims: Claims, now: float) -> None:  # noqa: B027 - for who has use for it
        """A call has come and asks for these: once for each, whatever becomes of it."""

    def rate(self, key: str, policy: BucketPolicy) -> float:  # noqa: ARG002
        """How fast one bucket refills for this process, a second."""
        return policy.rate_per_s

    def most(self, key: str, policy: BucketPolicy) -> float:  # noqa: ARG002
        """How much of one bucket this process may have at once: what comes when it has that is lost to it."""
        return policy.burst

    def counted(self, key: str, quota: QuotaPolicy, now: float) -> int | None:  # noqa: ARG002
        """How much of one quota is spent; None where this process does not know."""
        return None

    def limit_of(self, key: str) -> int | None:  # noqa: ARG002
        """How many permits of one cap are this process's for now; None: all of them."""
        return None

    @abstractmethod
    def level(self, key: str, policy: BucketPolicy, now: float) -> float:
        """What is left in one bucket."""
        ...

    @abstractmethod
    def bucket_keys(self, prefix: str) -> list[str]:
        """The buckets that are not full and whose key begins with `prefix`."""
        ...

    @abstractmethod
    def cap_keys(self, prefix: str) -> list[str]:
        """The caps under which a permit is held and whose key begins with `prefix`."""
        ...
