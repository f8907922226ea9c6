"""When an upstream asks to come back, in seconds from now."""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime

from proxy.upstream.contract import Headers


def retry_after_s(headers: Headers, wall: float) -> float | None:
    """Seconds until the upstream wants to be asked again, never negative; None if it does not say.

    `retry-after-ms` (OpenAI, Anthropic) and `x-ms-retry-after-ms` (Azure) before `retry-after`, which is
    seconds or a date (RFC 9110 §10.2.3).
    A date is measured from the answer's own Date, so that the two clocks need not agree; from `wall`, in
    Unix seconds, if there is none.
    """
    told = {name: value.decode("latin-1") for name, value in headers if name in _NAMES}
    for name in _MILLISECONDS:
        exact = _number(told.get(name, ""))
        if exact is not None:
            return exact / 1000
    value = told.get(b"retry-after", "")
    seconds = _number(value)
    if seconds is not None:
        return seconds
    until = _date(value)
    if until is None:
        return None
    now = _date(told.get(b"date", ""))
    return max(0.0, until - (wall if now is None else now))


_MILLISECONDS = (b"retry-after-ms", b"x-ms-retry-after-ms")
_NAMES = frozenset({b"retry-after", *_MILLISECONDS, b"date"})


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _date(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
