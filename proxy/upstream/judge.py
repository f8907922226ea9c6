"""What an exchange says about its upstream, whichever way it was carried."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

from proxy.core.verdict import FAILED, IGNORED, OVERLOADED, SUCCEEDED, UNUSED, Reason
from proxy.upstream.contract import Headers, Result
from proxy.upstream.retry_after import retry_after_s

TELLS_WHEN: Final = frozenset({429, 503, 529})


class Answered(Protocol):
    """The head of an answer."""

    @property
    def headers(self) -> Headers: ...


class Ended(Protocol):
    """An exchange that is over.

    `sent_at`: when all of the request was sent. `gone`: the caller left. `stalled`: its turn lasted too long.
    `late`: the call's own deadline passed.
    `reason` and `detail` say what went wrong with the upstream; `bytes_out` of its body were handed on.
    """

    @property
    def answer(self) -> Answered | None: ...
    @property
    def sent_at(self) -> float | None: ...
    @property
    def reason(self) -> Reason | None: ...
    @property
    def detail(self) -> str: ...
    @property
    def bytes_out(self) -> int: ...
    @property
    def gone(self) -> bool: ...
    @property
    def stalled(self) -> bool: ...
    @property
    def late(self) -> bool: ...


def judge(ended: Ended, result: Result, clock: Callable[[], float]) -> Result:
    """Complete the result (DESIGN §5: 429 is no failure, 5xx is)."""
    if result.first_byte_s is not None:
        result.silent_s += result.first_byte_s
    elif ended.sent_at is not None:
        result.silent_s += clock() - ended.sent_at
    result.answered_bytes = ended.bytes_out
    if ended.gone or ended.stalled:
        return left(result, ended.detail)
    if not result.complete:
        # A deadline is the caller's choice: one who sets it too short must not open everybody's breaker.
        result.outcome = IGNORED if ended.late else FAILED
        result.reason = ended.reason or Reason.UPSTREAM_FAILED
        after = f"cut after {ended.bytes_out} bytes: " if result.started else ""
        result.detail = after + ended.detail
        return result
    status = result.status or 0
    if status in TELLS_WHEN and ended.answer is not None:
        result.retry_after_s = retry_after_s(ended.answer.headers, time.time())
    if status == 429:
        result.outcome = OVERLOADED
    else:
        result.outcome = FAILED if status >= 500 else SUCCEEDED
    return result


def is_good(status: int) -> bool:
    """Does an answer with this status say, as far as its beginning can, that the upstream is well?"""
    return status < 500 and status != 429


def left(result: Result, detail: str) -> Result:
    """The caller is gone: that says nothing about the upstream."""
    result.gone = True
    result.outcome = IGNORED
    result.detail = detail or "the caller left"
    return result


def no_room(result: Result) -> Result:
    """No connection came free in time: our own bound says nothing about the upstream."""
    result.outcome = UNUSED
    result.reason, result.detail = Reason.UPSTREAM_FAILED, "every connection that is allowed is in use"
    return result
