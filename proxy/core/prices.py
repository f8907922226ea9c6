"""What a call costs in money: a table of prices by model, and the arithmetic, in whole numbers.

Money is counted in millionths of the currency's unit, for so are prices: a price of 2.5 for a million tokens
is 2.5 millionths for each. No sum of floats can drift.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from proxy.core.used import Used

MICRO: Final = 1_000_000
"""Millionths of one unit of the currency, the grain in which money is counted."""

GRAIN: Final = 1_000_000
"""Prices are kept in millionths of that grain: six digits behind the point, as a price is written."""

ANY: Final = "*"


class Price:
    """Of one model, for a token: of `input` read anew, of `output`, `cached` (read from the provider's
    cache) and `written` to that cache. Each a whole number, of which `GRAIN` are a millionth.
    """

    __slots__ = ("cached", "input", "output", "written")

    def __init__(
        self,
        input: int,  # noqa: A002 - its name in the YAML
        output: int,
        cached: int,
        written: int,
    ) -> None:
        self.input = input
        self.output = output
        self.cached = cached
        self.written = written

    def cost(self, given: float, taken: float, cached: float = 0.0, written: float = 0.0) -> int:
        """In millionths, rounded up: `given` tokens read anew, `written` among them, and `taken` of output.

        Those read from the cache, `cached`, are not among the `given`.
        """
        exact = (given - written) * self.input + written * self.written
        exact += taken * self.output + cached * self.cached
        return -(-round(exact) // GRAIN)

    def cost_of(self, used: Used) -> int:
        """The same of what a call used."""
        return self.cost(used.input, used.output, used.cached, used.written)


class Prices:
    """The table. A name that ends in `*` stands for all models whose name begins so; the longest wins."""

    __slots__ = ("_exact", "_prefixes", "currency")

    def __init__(self, currency: str, models: Mapping[str, Price]) -> None:
        self.currency = currency
        self._exact = {name: price for name, price in models.items() if not name.endswith(ANY)}
        prefixes = [(name[:-1], price) for name, price in models.items() if name.endswith(ANY)]
        self._prefixes = sorted(prefixes, key=lambda row: len(row[0]), reverse=True)

    def of(self, model: str) -> Price | None:
        """The price of a model; None where the table has none for it."""
        price = self._exact.get(model)
        if price is not None:
            return price
        for prefix, of_prefix in self._prefixes:
            if model.startswith(prefix):
                return of_prefix
        return None
