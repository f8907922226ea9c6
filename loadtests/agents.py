"""How an agent behaves when it calls a model through an SDK: pure rules, no sockets, no clock, no locust.

The rules are those of the openai Python SDK 3.x (`_base_client.py`, read and observed): two retries, told
waits kept to the millisecond, `x-should-retry` obeyed, an exponential back-off where nothing was told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from math import isfinite
from random import Random
from typing import Final

MOST_RETRIES: Final = 2
LONGEST_TOLD_WAIT_S: Final = 120.0
"""A longer Retry-After makes the SDK give up at once."""
FIRST_BACK_OFF_S: Final = 0.5
LONGEST_BACK_OFF_S: Final = 8.0
NO_ANSWER: Final = 0
"""The status of an attempt that ended without one: no connection, reset, timeout."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of agent: its priority, its part of the offered calls, how long an answer has worth."""

    priority: str
    part: int
    patience_s: float


# Critical alone is 0.3 of the upstream's capacity at 3x: it fits, so every critical call should succeed.
KINDS: Final = (
    Kind("critical", part=10, patience_s=10.0),
    Kind("normal", part=40, patience_s=30.0),
    Kind("background", part=50, patience_s=60.0),
)


@dataclass(slots=True)
class CallRecord:
    """One logical call from its scheduled arrival to its end, however many attempts it took.

    Times are monotonic seconds. `end` is one of `good`, `late`, `refused`, `failed`, `gave_up`, or `open`
    while it runs. `told_nothing` counts refusals (429, 503) that came without a time to return.
    """

    priority: str
    scheduled_at: float
    started_at: float
    ended_at: float = 0.0
    end: str = "open"
    statuses: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    told_nothing: int = 0

    @property
    def latency_s(self) -> float:
        """From the scheduled arrival: what the generator was late counts against the answer."""
        return self.ended_at - self.scheduled_at


def arrivals(rate_per_s: float, start_at: float, chance: Random) -> Iterator[float]:
    """The times of a Poisson stream of calls, for ever: open loop, blind to how the answers come."""
    at = start_at
    while True:
        at += chance.expovariate(rate_per_s)
        yield at


def request(kind: Kind, caller: str, call: int, attempt: int) -> tuple[dict[str, str], bytes]:
    """Headers and body of one attempt (counted from 0) as the SDK sends them to /v1/chat/completions.

    No two calls of a caller have the same body, nor, but by chance, the same length; all attempts of one
    call have both: by that a proxy may tell a retry from a new call.
    """
    headers = {
        "content-type": "application/json",
        "accept": "application/json",
        "authorization": f"Bearer {caller}",
        "x-caller-id": caller,
        "x-priority": kind.priority,
        "x-stainless-retry-count": str(attempt),
        "x-stainless-read-timeout": f"{kind.patience_s:g}",
    }
    words = "word " * Random(f"{caller}/{call}").randrange(10, 1000)
    prompt = f"Summarise ticket {call} of {caller} in one sentence: {words}"
    body = {"model": "demo-model", "messages": [{"role": "user", "content": prompt}], "max_tokens": 64}
    return headers, json.dumps(body).encode()


def wait_before_retry(
    status: int, headers: Mapping[str, str], attempt: int, chance: float, now_unix_s: float
) -> float | None:
    """Seconds until the next attempt, or None when this answer is final.

    `headers` has lower-case names; `attempt` counts from 0; `chance` is uniform in [0, 1).
    """
    told = told_wait_s(headers, now_unix_s)
    if attempt >= MOST_RETRIES or (told is not None and told > LONGEST_TOLD_WAIT_S):
        return None
    if not _asks_for_retry(status, headers.get("x-should-retry", "")):
        return None
    if told is not None and told > 0:
        return told
    back_off: float = min(FIRST_BACK_OFF_S * 2**attempt, LONGEST_BACK_OFF_S)
    return back_off * (1 - 0.25 * chance)


def _asks_for_retry(status: int, should_retry: str) -> bool:
    if should_retry in {"true", "false"}:
        return should_retry == "true"
    return status in {NO_ANSWER, 408, 409, 429} or status >= 500


def told_wait_s(headers: Mapping[str, str], now_unix_s: float) -> float | None:
    """The wait an answer asks for: `retry-after-ms` first, then `Retry-After` in seconds or as a date."""
    for name, per_s in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            told = float(headers[name])
        except (KeyError, ValueError):
            continue  # absent, or a date: as the SDK does, the next form is tried
        return told / per_s if isfinite(told) else None
    try:
        return parsedate_to_datetime(headers["retry-after"]).timestamp() - now_unix_s
    except (KeyError, ValueError):
        return None


def end_of(kind: Kind, status: int, ended_at: float, scheduled_at: float) -> str:
    """How a logical call ended whose last attempt had this status."""
    if 200 <= status < 300:
        return "good" if ended_at - scheduled_at <= kind.patience_s else "late"
    return "refused" if status in {400, 429, 503} else "failed"
