"""Who calls, how urgently, for which run and until when: read from the headers, and pure.

No credential leaves this file: a caller is its configured name or a short hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from proxy.core.rounding import NEVER
from proxy.dialects.in_body import InBody, Said
from proxy.run_names import HASH_CHARS, RunNames
from proxy.upstream import CREDENTIALS, Headers
from proxy.urgency import UNSAID, Hints

ANONYMOUS: Final = "anonymous"
MOST_MET: Final = 10_000
"""Callers remembered at once, so that the keys of a fleet are hashed once and not with every call."""

LONG_TARGET_BYTES: Final = 128

MARGIN_SHARE: Final = 0.1
MOST_MARGIN_S: Final = 1.0
"""An SDK's own time limit starts before our clock and ends before our answer has crossed the wire."""

LONGEST_DEADLINE_MS: Final = 7 * 24 * 3600 * 1000

SDK_TIMEOUTS: Final = (b"x-stainless-read-timeout", b"x-stainless-timeout", b"x-server-timeout")
"""In seconds: of OpenAI's and Anthropic's SDKs, and of Google's (google-genai), which rounds it up."""


class BadHeader(ValueError):
    """A header we asked for has a value that means nothing; the message is for the caller."""


class Standing(NamedTuple):
    """What the configuration grants one caller."""

    name: str
    max_rank: int
    weight: float


class Identity:
    """Reads callers and priorities as configured."""

    def __init__(
        self,
        *,
        identify: Sequence[str],
        known: Mapping[str, Standing],
        default: Standing,
        priority_header: str,
        classes: Sequence[str],
        default_class: str,
        runs: RunNames,
        hints: Hints,
    ) -> None:
        """`known` maps `fingerprint(key)` to what its owner may do; `default` holds for all others."""
        self._identify = tuple(name.lower().encode() for name in identify)
        self._known = known
        self._default = default
        self._priority = priority_header.lower().encode()
        self._ranks = {name.encode(): rank for rank, name in enumerate(classes)}
        self._default_rank = classes.index(default_class)
        self._anonymous = Standing(ANONYMOUS, default.max_rank, default.weight)
        self._met: dict[int, tuple[Standing, bool]] = {}
        self._hints = hints
        self.runs = runs

    def caller(self, headers: dict[bytes, bytes]) -> Standing:
        """Who is charged: a configured caller, by whichever of the headers shows its key.

        Else whoever the first header that is present names; without any of them, one shared `anonymous`.
        """
        first: Standing | None = None
        for name in self._identify:
            value = headers.get(name)
            if value:
                standing, is_known = self._standing(value)
                if is_known or not self._known:
                    return standing
                first = first or standing
        return first or self._anonymous

    def _standing(self, value: bytes) -> tuple[Standing, bool]:
        """Whose key this is, and whether the configuration knows it.

        Remembered under Python's own keyed hash of it (SipHash, 64 bits): no key itself is kept.
        """
        mark = hash(value)
        met = self._met.get(mark)
        if met is None:
            if len(self._met) >= MOST_MET:
                self._met.clear()
            name = fingerprint(value)
            known = self._known.get(name)
            met = known or Standing(name, self._default.max_rank, self._default.weight), known is not None
            self._met[mark] = met
        return met

    def asks(self, in_body: InBody, headers: dict[bytes, bytes]) -> bool:
        """Do the headers leave open what the body may say?"""
        return self.asks_run(in_body, headers) or self.asks_urgency(in_body, headers)

    def asks_run(self, in_body: InBody, headers: dict[bytes, bytes]) -> bool:
        """Does no header name the run that is asked before the body is?"""
        return in_body.run_before >= 0 and not self.runs.said(headers, in_body.run_before)

    def asks_urgency(self, in_body: InBody, headers: dict[bytes, bytes]) -> bool:
        """Does no header state how urgent the call is that is asked before the body is?"""
        return in_body.urgency and self._priority not in headers and self._hints.wants_body(headers)

    def rank(
        self, headers: dict[bytes, bytes], standing: Standing, said: Said | None = None
    ) -> tuple[int, bool]:
        """The call's rank, never above the caller's maximum, and whether the header made sense.

        Without that header the first hint that says something counts; `said` is what the body did.
        """
        value = headers.get(self._priority)
        if value is None:
            hinted = UNSAID
            if self._hints:
                hinted = self._hints.rank(headers, b"" if said is None else said.urgency)
            return max(self._default_rank if hinted == UNSAID else hinted, standing.max_rank), True
        rank = self._ranks.get(value.strip().lower())
        if rank is None:
            return max(self._default_rank, standing.max_rank), False
        return max(rank, standing.max_rank), True


def fingerprint(value: bytes) -> str:
    """A caller's mark. One key has one mark, sent as `Authorization: Bearer KEY` or as `x-api-key: KEY`."""
    value = value.strip()
    if value[:7].lower() == b"bearer ":
        value = value[7:].strip()
    return hashlib.sha256(value).hexdigest()[:HASH_CHARS]


def pool_of(headers: Headers) -> str:
    """By whose key a call goes to an upstream, where callers bring their own; "" without one."""
    for name, value in headers:
        if name in CREDENTIALS:
            return fingerprint(value)
    return ""


def target_mark(path: bytes, query: bytes | None) -> bytes:
    """What a path and its query are known by where they are remembered: a long one by its hash."""
    target = path + b"?" + query if query else path
    return target if len(target) <= LONG_TARGET_BYTES else hashlib.sha256(target).digest()


def deadline_s(headers: dict[bytes, bytes]) -> tuple[float, float]:
    """Seconds until an answer is worthless, and until waiting for its first byte is (inf: not said).

    The first is the caller's word, `x-deadline-ms`. The second is also the SDK's own time limit for a
    read, less a margin; SDKs may send `NOT_GIVEN` there. Raises BadHeader.
    """
    total = NEVER
    told = headers.get(b"x-deadline-ms")
    if told is not None:
        if not told.strip().isdigit() or len(told) > 20:
            raise BadHeader("x-deadline-ms must be a whole number of milliseconds, 0 or more, from now.")
        total = min(int(told), LONGEST_DEADLINE_MS) / 1000
    for name in SDK_TIMEOUTS:
        patience = _seconds(headers.get(name))
        if patience is not None:
            return total, min(total, patience - min(MOST_MARGIN_S, MARGIN_SHARE * patience))
    return total, total


def sdk_says_retry(headers: dict[bytes, bytes]) -> bool:
    """Does an SDK's own count prove a retry? A count of 0, or none, proves nothing."""
    count = headers.get(b"x-stainless-retry-count", b"")
    return count.isdigit() and len(count) < 10 and int(count) > 0


def _seconds(value: bytes | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None  # NOT_GIVEN, and whatever else an SDK may say: no time limit is known
    return seconds if 0 < seconds < NEVER else None
