"""`retries:` of a route: when a call that failed is sent once more."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from proxy.settings.environment import WrongValueError, shown
from proxy.settings.nearest import advice
from proxy.settings.section import Section
from proxy.settings.units import Duration, DurationOrZero
from proxy.settings.words import one_of

WAYS: Final = ("connect", "reset", "timeout", "5xx", "429")
STATUS: Final = r"^(429|5[0-9][0-9])$"
SERVER_ERRORS: Final = frozenset(range(500, 600))


def _attempts(value: object) -> int:
    if isinstance(value, int | str) and str(value) == "1":
        return 1
    raise WrongValueError("one more is the most, for layers of retries multiply; write 1, or retries: off")


def _some(value: object) -> object:
    if value == []:
        raise WrongValueError("names nothing that may happen; write such as [connect, 503], or retries: off")
    return value


def _way(value: object) -> str:
    word = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(word, str) and (word in WAYS or re.fullmatch(STATUS, word)):
        return str(word)
    if isinstance(word, str) and not word.isdigit():
        raise WrongValueError(f"{shown(word)} is not known; {advice(word, WAYS)}, or a status such as 503")
    raise WrongValueError("only 429 and 500 to 599 may be over in a moment; write such as 503")


Attempts = Annotated[int, BeforeValidator(_attempts), WithJsonSchema({"const": 1})]
Way = Annotated[
    str,
    BeforeValidator(_way),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [*WAYS, 429]},
                {"type": "integer", "minimum": 500, "maximum": 599},
                {"type": "string", "pattern": STATUS},
            ]
        }
    ),
]
Ways = Annotated[tuple[Way, ...], BeforeValidator(_some)]
Calls = Annotated[Literal["idempotent", "all"], BeforeValidator(one_of("idempotent", "all"))]


class Retries(Section):
    """When a call that failed is sent once more, by the proxy itself."""

    attempts: Attempts = Field(default=1, description="After the first; there is no more than one.")
    when: Ways = Field(
        default=("connect", "reset", "502", "503", "504"),
        description=(
            "How the first must have ended. connect: no connection, so nothing was sent. reset: it was sent, "
            "and no answer began. timeout: none began within first_byte. 5xx, 429, or any status of them: "
            "so it was answered. The default is nginx's error and Envoy's gateway-error together."
        ),
    )
    calls: Calls = Field(
        default="idempotent",
        description=(
            "idempotent: GET, HEAD, OPTIONS, and what has an Idempotency-Key. all: any, as nginx's "
            "non_idempotent; for calls that may happen, and be charged, twice: those of models, searches. "
            "What was never sent is repeated in either case."
        ),
    )
    backoff_s: Duration = Field(
        default="250ms",
        alias="backoff",
        validate_default=True,
        description=(
            "The longest pause before it; each is between 0 and this, by chance (full jitter, as AWS; Envoy "
            "pauses up to 250ms too). The call holds no permit meanwhile."
        ),
    )
    retry_after_s: DurationOrZero = Field(
        default="2s",
        alias="retry_after",
        validate_default=True,
        description=(
            "What the upstream's own Retry-After may ask for at most; the pause begins when it is over. An "
            "answer that asks for more goes to the caller, whose SDK honours it (up to 60s)."
        ),
    )

    @property
    def statuses(self) -> frozenset[int]:
        """The statuses among `when`."""
        named = frozenset(int(way) for way in self.when if way.isdigit())
        return named | SERVER_ERRORS if "5xx" in self.when else named
