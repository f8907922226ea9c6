"""`prices:` what models cost, and amounts of money as an operator writes them: `5 USD`, `0.50 EUR`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from proxy.core.prices import MICRO
from proxy.settings.environment import WrongValueError, shown
from proxy.settings.section import Section

CURRENCY: Final = r"[A-Z]{3,8}"
MONEY: Final = rf"^(?P<amount>[0-9]{{1,9}}(?:\.[0-9]{{1,6}})?) (?P<currency>{CURRENCY})$"
MODEL: Final = r"^[!-)+-~]{0,127}[!-~]$"
HIGHEST_PRICE: Final = 1_000_000
"""For a million tokens. The dearest model of any provider costs a thousandth of it."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in millionths of a unit of its currency. `label` says it in words."""

    micro: int
    currency: str
    label: str


def money(value: object) -> Money:
    """`5 USD` → Money above 0."""
    match = re.fullmatch(MONEY, value) if isinstance(value, str) else None
    if match is None:
        raise WrongValueError(f"{shown(value)} is not an amount of money; write such as 5 USD")
    micro = round(float(match["amount"]) * MICRO)
    if micro <= 0:
        raise WrongValueError(f"{shown(value)} lets nothing through; write more than 0")
    return Money(micro, match["currency"], str(value))


def currency(value: object) -> str:
    """The word for the one currency of all prices."""
    if isinstance(value, str) and re.fullmatch(CURRENCY, value):
        return str(value)
    raise WrongValueError(f"{shown(value)} cannot be a currency; write 3 to 8 capital letters, such as USD")


def price(value: object) -> float:
    """What a million tokens cost, 0 or more."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,6})?", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= HIGHEST_PRICE:
        raise WrongValueError("the price of a million tokens is needed here; write a number, such as 2.50")
    return float(value)


def model_pattern(value: object) -> str:
    """A model's name, or the beginning of one and `*`."""
    if isinstance(value, str) and re.fullmatch(MODEL, value):
        return str(value)
    raise WrongValueError(f"{shown(value)} cannot be a model; write such as gpt-4o, gpt-4o-* or *")


Currency = Annotated[
    str, BeforeValidator(currency), WithJsonSchema({"type": "string", "pattern": f"^{CURRENCY}$"})
]
MoneyAmount = Annotated[
    Money,
    PlainValidator(money),
    PlainSerializer(attrgetter("label")),
    WithJsonSchema({"type": "string", "pattern": re.sub(r"\?P<[a-z]+>", "", MONEY), "examples": ["5 USD"]}),
]
PricePerMillion = Annotated[
    float,
    BeforeValidator(price),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": HIGHEST_PRICE}),
]
ModelPattern = Annotated[
    str, BeforeValidator(model_pattern), WithJsonSchema({"type": "string", "pattern": MODEL})
]


class ModelPrice(Section):
    """What a million tokens of one model cost."""

    input: PricePerMillion = Field(description="Tokens of the request.", examples=[2.50])
    output: PricePerMillion = Field(description="Tokens of the answer, of reasoning too.", examples=[10])
    cached: PricePerMillion | None = Field(
        default=None,
        description="Tokens read from the provider's cache. Default: as input, which is never too little.",
        examples=[1.25],
    )
    cache_write: PricePerMillion | None = Field(
        default=None,
        description="Tokens of the request that are written to that cache. Default: as input.",
        examples=[3.75],
    )


class Prices(Section):
    """What calls cost. One currency for all."""

    currency: Currency = Field(description="As the provider bills.", examples=["USD"])
    models: dict[ModelPattern, ModelPrice] = Field(
        description=(
            "By the model's name as bodies write it, or the beginning of it and `*`; the longest that fits "
            'counts. "*" is for all others, and needed where money is counted in a quota or a run_budget.'
        ),
        examples=[{"gpt-4o": {"input": 2.50, "output": 10, "cached": 1.25}}],
    )
