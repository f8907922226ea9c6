"""The limits of a provider: a bucket of calls and one of tokens, told in the head of every answer.

In the form of OpenAI (`x-ratelimit-remaining-requests: 59`, reset `1s`) or of Anthropic (reset an instant).
Both refill all the time. A call that finds nothing left is answered 429 and charged nothing.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from math import ceil
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Headers = tuple[tuple[bytes, bytes], ...]
Amount = Annotated[float, Meta(gt=0, le=1e9)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """So many calls and tokens in each `per_s`, and no more at once. Tokens are charged on arrival."""

    requests: Amount
    tokens: Amount = 1e9
    per_s: Amount = 60.0
    form: Literal["openai", "anthropic"] = "openai"


class _Bucket:
    def __init__(self, name: str, most: float, per_s: float) -> None:
        self.name = name
        self.most = most
        self.rate = most / per_s
        self.left = most
        self.at = 0.0

    def refill(self, now: float) -> None:
        self.left = min(self.most, self.left + self.rate * max(0.0, now - self.at))
        self.at = now

    @property
    def reset_s(self) -> float:
        return (self.most - self.left) / self.rate


class Provider:
    """What one provider allows, and has left."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._buckets = (
            _Bucket("requests", limits.requests, limits.per_s),
            _Bucket("tokens", limits.tokens, limits.per_s),
        )

    def take(self, tokens: float) -> tuple[float, Headers]:
        """One call of so many tokens: 0.0, or how long to wait in vain; and what is told of what is left."""
        now = time.monotonic()
        wait_s = 0.0
        for bucket, cost in zip(self._buckets, (1.0, tokens), strict=True):
            bucket.refill(now)
            wait_s = max(wait_s, (min(cost, bucket.most) - bucket.left) / bucket.rate)
        if wait_s <= 0.0:
            for bucket, cost in zip(self._buckets, (1.0, tokens), strict=True):
                bucket.left = max(0.0, bucket.left - cost)
        return max(0.0, wait_s), self._told()

    def _told(self) -> Headers:
        told = []
        for bucket in self._buckets:
            values = (f"{bucket.most:.0f}", f"{int(bucket.left)}", self._reset(bucket.reset_s))
            for what, value in zip(("limit", "remaining", "reset"), values, strict=True):
                name = f"x-ratelimit-{what}-{bucket.name}"
                if self.limits.form == "anthropic":
                    name = f"anthropic-ratelimit-{bucket.name}-{what}"
                told.append((name.encode(), value.encode()))
        return tuple(told)

    def _reset(self, seconds: float) -> str:
        if self.limits.form == "anthropic":
            at = datetime.fromtimestamp(ceil(time.time() + seconds), UTC)
            return at.strftime("%Y-%m-%dT%H:%M:%SZ")
        if seconds < 1.0:
            return f"{seconds * 1000:.0f}ms"
        minutes, rest = divmod(seconds, 60.0)
        return f"{int(minutes)}m{rest:.3g}s" if minutes else f"{rest:.4g}s"
