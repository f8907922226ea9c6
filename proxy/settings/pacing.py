"""What an upstream's own words on its limits are worth: `pace:` and `limit_patterns:`."""

from __future__ import annotations

import re
import warnings
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema

from proxy.settings.environment import WrongValueError
from proxy.settings.section import OFF

MOST_CHARS: Final = 200
MOST_PATTERNS: Final = 16
"""Each is searched for in the beginning of each answer: that takes some microseconds."""

TOLD: Final = "told"
SECONDS: Final = "seconds"

_REPEATED: Final = re.compile(r"(?<!\\)\)\s*(?:[*+]|\{\d+,\d*\})")
_OPEN_ENDED: Final = re.compile(r"(?<!\\)[*+]|\{\d+,\}")


def _pace(value: object) -> str | None:
    if value is False or value == "off":
        return None
    if value == TOLD:
        return TOLD
    raise WrongValueError("told or off is needed here; write such as told")


def _patterns(value: object) -> tuple[str, ...]:
    example = r"write such as ['rate limit exceeded, retry in (?P<seconds>\d+)s']"
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) and each for each in value):
        raise WrongValueError(f"a list of regular expressions is needed here; {example}")
    if len(value) > MOST_PATTERNS:
        raise WrongValueError(f"there are {len(value)} patterns; write at most {MOST_PATTERNS}")
    for pattern in value:
        _check(pattern)
    return tuple(value)


def _check(pattern: str) -> None:
    if len(pattern) > MOST_CHARS:
        raise WrongValueError(f"a pattern of {len(pattern)} characters; write one of at most {MOST_CHARS}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            compiled = re.compile(pattern.encode())
    except (re.error, FutureWarning, DeprecationWarning, OverflowError, RecursionError) as error:
        raise WrongValueError(
            f"{pattern!r} is no regular expression ({error}); write such as 'rate limit'"
        ) from None
    if compiled.search(b"") is not None:
        raise WrongValueError(f"{pattern!r} is in every answer; write such as 'rate limit'")
    repeated = _REPEATED.search(pattern)
    if repeated is not None and _OPEN_ENDED.search(_group_before(pattern, repeated.start())):
        raise WrongValueError(
            f"{pattern!r} repeats a group that repeats, which may take hours; write .{{0,40}} within it"
        )
    if unknown := set(compiled.groupindex) - {SECONDS}:
        raise WrongValueError(f"the only named group is (?P<{SECONDS}>...); remove {min(unknown)!r}")


def _group_before(pattern: str, end: int) -> str:
    """From the outermost bracket that is open there: more than the group itself at worst, which is safe."""
    return pattern[pattern.find("(") : end]


Pace = Annotated[str | None, BeforeValidator(_pace), WithJsonSchema({"enum": [TOLD, *OFF]})]
_ITEM: Final[dict[str, Any]] = {"type": "string", "minLength": 1, "maxLength": MOST_CHARS}
LimitPatterns = Annotated[
    tuple[str, ...],
    BeforeValidator(_patterns),
    WithJsonSchema({"type": "array", "items": _ITEM, "maxItems": MOST_PATTERNS}),
]
