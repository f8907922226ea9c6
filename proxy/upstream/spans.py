"""When something is reset, in the many forms in which it is told: seconds from now, or None."""

from __future__ import annotations

import math
import re
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

EPOCH_FROM: Final = 30 * 86_400.0
"""A number from here on is an instant since 1970, a smaller one a span (so in agentgateway, too): no provider
has a window longer than a month, and nobody's clock stands in January 1970."""

MILLISECONDS_FROM: Final = 1e11
"""An instant from here on counts milliseconds: in seconds it would be in the year 5138. OpenRouter's does."""

LONGEST_S: Final = 366 * 86_400.0
"""What is further away than this is no reset."""

MOST_CHARS: Final = 40

_SPAN: Final = re.compile(
    r"(?:(?P<d>\d{1,6})d)?(?:(?P<h>\d{1,6})h)?(?:(?P<m>\d{1,6})m(?!s))?"
    r"(?:(?P<s>\d{1,9}(?:\.\d{1,9})?)s)?(?:(?P<ms>\d{1,9}(?:\.\d{1,9})?)ms)?",
    re.ASCII,
)
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,20}(?:\.\d{1,20})?", re.ASCII)


def number(text: str) -> float | None:
    """A plain decimal number, not negative; None for anything else (signs, exponents, `nan`, `inf`)."""
    return float(text) if _NUMBER.fullmatch(text) else None


def span_s(text: str, wall: float) -> float | None:
    """Seconds from `wall` (Unix time) to a reset, never negative nor over `LONGEST_S`.

    `30`, `11.1`, `2m30s`, `6m0s`, `20ms`, `1h`, `1d`; an instant of Unix time in seconds or milliseconds;
    RFC 3339; an HTTP date. An instant that is past is now.
    """
    text = text.strip()
    if not text or len(text) > MOST_CHARS:
        return None
    seconds = number(text)
    if seconds is not None:
        if seconds >= EPOCH_FROM:
            seconds = (seconds / 1000 if seconds >= MILLISECONDS_FROM else seconds) - wall
    elif (span := _SPAN.fullmatch(text)) is not None:
        seconds = sum(float(span[unit] or 0.0) * of for unit, of in _UNITS)
    else:
        instant = instant_of(text)
        seconds = None if instant is None else instant - wall
    if seconds is None or not seconds <= LONGEST_S:
        return None
    return max(0.0, seconds)


_UNITS: Final = (("d", 86_400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 0.001))


def instant_of(text: str) -> float | None:
    """Unix time of an RFC 3339 instant (UTC, where it names no zone) or of an HTTP date."""
    try:
        if _INSTANT.match(text):
            instant = datetime.fromisoformat(text)
            # Resets are told in UTC whatever the clock of this machine says.
            seconds = instant.replace(tzinfo=instant.tzinfo or _UTC).timestamp()
        else:
            seconds = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    return seconds if math.isfinite(seconds) else None


_UTC: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00").tzinfo
