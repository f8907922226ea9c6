"""What every dialect says of a refusal: how long, in which headers, and in which words.

Codes and bodies are each dialect's own. Sources: DESIGN §7; reference/clients.md, "What a proxy must send".
"""

from __future__ import annotations

from math import ceil
from typing import Final, NamedTuple

from proxy.core.advice import Advice
from proxy.core.verdict import LONGEST_RETRY_AFTER_S, Kind, Reason, Refusal, kind_of, status_of
from proxy.dialects.advice import add_header, final_sentence_of, members, sentence_of, without_values
from proxy.dialects.base import Headers
from proxy.dialects.printable import printable
from proxy.dialects.run_words import RUN_WORDS
from proxy.dialects.words import WORDS

JSON: Final = b"application/json"

_LEAST_S: Final = 0.001

_FLOAT_NOISE_MS: Final = 0.0005
"""Rounding up must not make 3001 ms, and so 4 s, of an exact 3 s that took part in a sum of floats. Half of
what the buckets forgive (`core/bucket.py`, ROUNDING_S): whoever waits as told is still admitted."""


class _Manner(NamedTuple):
    """What a reason fixes, whoever is refused."""

    kind: Kind
    status: int
    is_final: bool
    default_wait_s: float | None
    header: tuple[bytes, bytes]
    advice: Advice | None


def _default_wait_s(reason: Reason) -> float | None:
    """What to tell where the gate knows no time, though the answer needs one; None: it needs none.

    Without Retry-After the SDKs give up after 1.4 s and Codex at once (clients.md, findings 5 and 10).
    Shed load must stay away longer than contention, a restart takes a few seconds (table "Statuses and
    codes"), and an outage or an empty retry budget is taken to last as long as the breaker stays open by
    default (DESIGN §6: 15 s).
    """
    match kind_of(reason):
        case Kind.COME_BACK:
            return 20.0 if reason is Reason.SHED else 5.0
        case Kind.UNAVAILABLE:
            return 5.0 if reason is Reason.DRAINING else 15.0
        case Kind.NOT_AGAIN:
            return 15.0
        case Kind.UPSTREAM | Kind.STOP:
            return None


_MANNERS: Final = {
    reason: _Manner(
        kind_of(reason),
        status_of(reason),
        kind_of(reason) in {Kind.STOP, Kind.NOT_AGAIN},
        _default_wait_s(reason),
        (b"x-backpressure-reason", reason.value.encode()),
        Advice(stop=True) if reason in {Reason.RUN_BUDGET_SPENT, Reason.RUN_HALTED} else None,
    )
    for reason in Reason
}

_RETRY: Final = (b"x-should-retry", b"true")
_NO_RETRY: Final = (b"x-should-retry", b"false")
_CLOSE: Final = (b"connection", b"close")


class Facts:
    """The facts of a refusal, the same in headers and body: safe to send, and within their bounds.

    `wait_s` is what `Retry-After` tells: `wait_ms`, rounded up. Both are 0 where no time is told, and at
    least 1 where one is. `comes_back` is false where no place was kept for then: an SDK should not return by
    itself. `is_final`: the same request should not be sent again. Clients scan such a body
    for digits and words to retry on (clients.md, finding 4), so it holds neither scope, limit nor wait.

    A plain slotted object: one is made for every refusal.
    """

    __slots__ = (
        "advice", "comes_back", "header", "is_final", "kind", "limit", "reason", "scope", "status",
        "wait_ms", "wait_s", "words",
    )  # fmt: skip

    def __init__(self, refusal: Refusal) -> None:
        self.reason = refusal.reason
        manner = _MANNERS[refusal.reason]
        self.kind, self.status, self.is_final, default_wait_s, self.header, advice = manner
        self.advice = refusal.advice or advice
        self.words = (RUN_WORDS.get(refusal.budget) if refusal.budget else None) or WORDS[refusal.reason]
        self.comes_back = refusal.come_back
        self.scope = printable(refusal.scope)
        self.limit = printable(refusal.limit)
        wait_s = default_wait_s if refusal.retry_after_s is None else refusal.retry_after_s
        if wait_s is None or self.kind is Kind.STOP:
            self.wait_ms = 0
        else:
            told_s = wait_s if _LEAST_S <= wait_s <= LONGEST_RETRY_AFTER_S else _bounded(wait_s)
            self.wait_ms = ceil(told_s * 1000 - _FLOAT_NOISE_MS)
        self.wait_s = -(-self.wait_ms // 1000)

    def status_or(self, stop_status: int) -> int:
        """The HTTP status; `stop_status` is the operator's choice for the kind "stop"."""
        return stop_status if self.kind is Kind.STOP else self.status

    @property
    def invites(self) -> bool:
        """Should a client come back by itself at the time told?"""
        return self.comes_back and not self.is_final and self.wait_ms > 0

    def members(self) -> dict[str, object]:
        """The facts as members of a body: everything, or no value with a digit where the answer is final."""
        known: dict[str, object] = {"reason": self.reason}
        if not self.is_final:
            known["scope"] = self.scope
            known["limit"] = self.limit or None
            known["retry_after_ms"] = self.wait_ms or None
        if self.advice is not None:
            known["advice"] = without_values(self.advice) if self.is_final else members(self.advice)
        return known


def headers_of(facts: Facts, content_type: bytes = JSON, *, by_status: bool = False) -> Headers:
    """The headers that every refusal carries, in every dialect.

    A 503 says nothing of `x-should-retry`: whether to go elsewhere at once is the client's to decide. But
    where no place is kept for a return, whatever the status, it says false: to return would be in vain.
    `by_status`: the HTTP status tells of the refusal. Then a draining proxy ends the connection too.
    """
    headers = [
        (b"content-type", content_type),
        facts.header,
        (b"x-backpressure-scope", facts.scope.encode()),
    ]
    if facts.limit:
        headers.append((b"x-backpressure-limit", facts.limit.encode()))
    if facts.advice is not None:
        add_header(headers, facts.advice)
    if facts.wait_ms:
        headers.append((b"retry-after", b"%d" % facts.wait_s))
        headers.append((b"retry-after-ms", b"%d" % facts.wait_ms))
    if facts.is_final or not facts.comes_back or (facts.kind is Kind.UPSTREAM and not facts.wait_ms):
        headers.append(_NO_RETRY)
    elif facts.kind is not Kind.UNAVAILABLE:
        headers.append(_RETRY)
    if by_status and facts.reason is Reason.DRAINING:
        headers.append(_CLOSE)
    return headers


def sentence(facts: Facts) -> str:
    """The refusal in words, for whoever reads the error of a model API or of a plain one.

    "Please try again in Ns." is what Codex reads the wait from (clients.md, finding 5), and what OpenCode
    repeats a call for (finding 4): it is not said where no place is kept for then.
    """
    words, more = facts.words, more_of(facts)
    if not facts.invites:
        return f"{words.fact} {words.advice}{more}"
    return f"{words.fact} Please try again in {facts.wait_s}s. {words.advice}{more}"


def more_of(facts: Facts) -> str:
    """The advice in words, to stand behind a sentence: with numbers only where a return is invited."""
    if facts.advice is None:
        return ""
    if facts.invites:
        return sentence_of(facts.advice)
    return final_sentence_of(facts.advice) if facts.is_final else ""


def _bounded(wait_s: float) -> float:
    """Within what can be told, and no number at all as the least: `max` keeps its first against a NaN."""
    return min(max(_LEAST_S, wait_s), LONGEST_RETRY_AFTER_S)
