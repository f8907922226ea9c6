"""Numbers with a unit, as an operator writes them: `10s`, `64KiB`, `500 requests/minute`.

Each parser takes what the YAML holds and raises WrongValueError; each has a pydantic type, which gives
the JSON Schema its pattern.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema

from proxy.settings.environment import WrongValueError, shown
from proxy.settings.section import OFF

_NUMBER: Final = r"[0-9]{1,12}(?:\.[0-9]{1,6})?"
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_TIMES: Final = {"": 1, "k": 1_000, "M": 1_000_000}
_PERIODS: Final = {"s": "second", "m": "minute", "h": "hour", "d": "day"}

LONGEST_S: Final = 365 * 86400.0
LARGEST_BYTES: Final = 2**30
MOST_BURST: Final = 1_000_000_000

DURATION: Final = rf"^{_NUMBER}(ms|s|m|h|d)$"
SIZE: Final = rf"^{_NUMBER}(B|KiB|MiB|GiB)$"
_PER: Final = rf"(?: ?/ ?| per )(?P<period>second|minute|hour|day|[smhd]|{_NUMBER}(?:ms|s|m|h|d))$"
BURST: Final = rf"^(?P<amount>{_NUMBER})(?P<times>k|M)?$"
_COUNTED: Final = "requests?|(?:input |output )?tokens?"
WINDOW: Final = rf"^(?P<amount>{_NUMBER})(?P<times>k|M)? (?P<unit>{_COUNTED}|[A-Z]{{3,8}}){_PER}"
RATE: Final = rf"^(?P<amount>{_NUMBER})(?P<times>k|M)? (?P<unit>{_COUNTED}){_PER}"
FLOOR: Final = rf"^(?P<amount>{_NUMBER})(?P<times>k|M)?(?: (?P<unit>retries|retry))?{_PER}"


@dataclass(frozen=True, slots=True)
class Rate:
    """`amount` requests (or tokens, or retries) in each `period_s` seconds. `label` says it in words.

    Where the unit is money, the amount is in units of the `currency`.
    """

    amount: float
    period_s: float
    label: str
    unit: str = "requests"
    currency: str = ""

    @property
    def per_s(self) -> float:
        """The amount in one second."""
        return self.amount / self.period_s


def duration_s(value: object) -> float:
    """`500ms 10s 2m 1h 1d` → seconds, 0 up to a year."""
    match = _match(DURATION, value, "a duration", "a number and ms, s, m, h or d, such as 10s")
    seconds = float(match[0].removesuffix(match[1])) * _SECONDS[match[1]]
    if seconds > LONGEST_S:
        raise WrongValueError(f"{shown(value)} is longer than a year; write at most 365d")
    return seconds


def some_duration_s(value: object) -> float:
    """As `duration_s`, and more than 0."""
    seconds = duration_s(value)
    if seconds < 0.001:
        raise WrongValueError(f"{shown(value)} leaves no time at all; write at least 1ms")
    return seconds


def duration_or_off_s(value: object) -> float | None:
    """As `some_duration_s`, or `off`: None."""
    return None if value is False or value == "off" else some_duration_s(value)


def size_bytes(value: object) -> int:
    """`64KiB 1MiB` → bytes, 1 up to 1 GiB."""
    match = _match(SIZE, value, "a size", "a number and B, KiB, MiB or GiB, such as 64KiB")
    size = int(float(match[0].removesuffix(match[1])) * _BYTES[match[1]])
    if not 1 <= size <= LARGEST_BYTES:
        raise WrongValueError(f"{shown(value)} is out of range; write 1B to 1GiB")
    return size


def rate(value: object) -> Rate:
    """`500 requests/minute`, `1 request per 3s`, `200k tokens/minute`, `8k output tokens/minute` → a Rate
    above 0."""
    match = _match(RATE, value, "a rate", "a number, a unit and a time, such as 500 requests/minute")
    if "token" in match["unit"]:
        return _tokens(match, value, least=0.001)
    return _rate(match, value, "request", "requests", least=0.001)


def window(value: object) -> Rate:
    """A quota, such as `10000 requests/day`, `5M tokens/day`, `1M output tokens/day` or `10 USD/day`, in a
    window of whole seconds.

    Requests and tokens are whole.
    """
    examples = "a number, a unit and a time, such as 10000 requests/day, 5M tokens/day or 10 USD/day"
    match = _match(WINDOW, value, "a quota", examples)
    word = match["unit"]
    if word.isupper():
        allowance = replace(_rate(match, value, word, word, least=0.000001), unit="money", currency=word)
        if allowance.amount > MOST_BURST:
            raise WrongValueError(f"{shown(value)} is more money than can be counted; write up to 1000M")
    elif "token" in word:
        allowance = _tokens(match, value, least=1)
    else:
        allowance = _rate(match, value, "request", "requests", least=0.001)
    whole = allowance.unit == "money" or allowance.amount.is_integer()
    if not (whole and allowance.period_s.is_integer()):
        what = "" if allowance.unit == "money" else f"whole {allowance.unit.replace('_', ' ')} "
        raise WrongValueError(f"{shown(value)} must be {what}in whole seconds; write 10000 requests/day")
    return allowance


def burst(value: object) -> int:
    """`50`, `50k` or `2M` → a whole number from 1 to a thousand million."""
    amount = value
    if isinstance(value, str) and (match := re.fullmatch(BURST, value)):
        amount = round(float(match["amount"]) * _TIMES[match["times"] or ""], 6)
    number = float(amount) if isinstance(amount, int | float) and not isinstance(amount, bool) else 0.0
    if 1 <= number <= MOST_BURST and number.is_integer():
        return int(number)
    raise WrongValueError("a whole number from 1 is needed here; write such as 50, or 50k for tokens")


def floor(value: object) -> Rate:
    """`10 per minute` or `10 retries/minute` → a Rate, which may be 0."""
    match = _match(FLOOR, value, "a rate of retries", "a number and a time, such as 10 per minute")
    return _rate(match, value, "retry", "retries", least=0.0)


def _tokens(match: re.Match[str], value: object, *, least: float) -> Rate:
    """All tokens, or those of one way."""
    way = match["unit"].rpartition("token")[0]
    unit = f"{way}tokens".replace(" ", "_")
    return replace(_rate(match, value, f"{way}token", f"{way}tokens", least=least), unit=unit)


def _rate(match: re.Match[str], value: object, one: str, many: str, *, least: float) -> Rate:
    amount = float(match["amount"]) * _TIMES[match["times"] or ""]
    period = _PERIODS.get(match["period"], match["period"])
    period_s = duration_s(f"1{period[0]}" if period in _PERIODS.values() else period)
    if amount < least:
        raise WrongValueError(f"{shown(value)} lets nothing through; write more than 0")
    if not 0.001 <= period_s <= LONGEST_S:
        raise WrongValueError(f"{shown(value)} has no time to count in; write such as 1 request/3s")
    return Rate(amount, period_s, f"{_plain(amount)} {one if amount == 1 else many}/{period}")


def _plain(number: float) -> str:
    return str(int(number)) if number.is_integer() else f"{number:f}".rstrip("0")


def _match(pattern: str, value: object, kind: str, write: str) -> re.Match[str]:
    if isinstance(value, str):
        if match := re.fullmatch(pattern, value):
            return match
        raise WrongValueError(f"{shown(value)} is not {kind}; write {write}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise WrongValueError(f"{shown(value)} has no unit; write {write}")
    raise WrongValueError(f"{kind} is needed here; write {write}")


def written(pattern: str, example: str) -> WithJsonSchema:
    """The JSON Schema of a value that is written as text of this pattern."""
    plain = re.sub(r"\?P<[a-z]+>", "", pattern)
    return WithJsonSchema({"type": "string", "pattern": plain, "examples": [example]})


Duration = Annotated[float, BeforeValidator(some_duration_s), written(DURATION, "10s")]
DurationOrZero = Annotated[float, BeforeValidator(duration_s), written(DURATION, "10s")]
DurationOrOff = Annotated[
    float | None,
    BeforeValidator(duration_or_off_s),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": DURATION, "examples": ["10m"]}, {"enum": list(OFF)}]}
    ),
]
Size = Annotated[int, BeforeValidator(size_bytes), written(SIZE, "64KiB")]
BucketRate = Annotated[
    Rate, PlainValidator(rate), PlainSerializer(attrgetter("label")), written(RATE, "500 requests/minute")
]
Burst = Annotated[
    int,
    BeforeValidator(burst),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MOST_BURST},
                {"type": "string", "pattern": re.sub(r"\?P<[a-z]+>", "", BURST), "examples": ["50k"]},
            ]
        }
    ),
]
QuotaWindow = Annotated[
    Rate, PlainValidator(window), PlainSerializer(attrgetter("label")), written(WINDOW, "10000 requests/day")
]
RetryFloor = Annotated[
    Rate, PlainValidator(floor), PlainSerializer(attrgetter("label")), written(FLOOR, "10 per minute")
]
