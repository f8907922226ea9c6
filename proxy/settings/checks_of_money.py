"""Money is counted only where there are prices, in their currency, of every model. No run budget is empty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from proxy.core.prices import ANY
from proxy.settings.document import Document
from proxy.settings.environment import WrongValueError
from proxy.settings.money import currency as currency_of
from proxy.settings.money import money
from proxy.settings.problems import Path
from proxy.settings.run_budget import STATED
from proxy.settings.units import window
from proxy.settings.written import items, mapping

Fault = tuple[Path, str]


def money_faults(document: Document) -> Iterator[Fault]:
    """What quotas and run budgets say against the prices."""
    written = document.value
    prices = written.get("prices")
    if isinstance(prices, dict) and prices.get("models") == {}:
        yield ("prices", "models"), "names no model; write one, or remove prices"
    for path, budget in _budgets(written):
        if not any(key in budget for key in STATED):
            yield path, f"states no budget; write one of {', '.join(STATED)}, or off"
    for path, currency in (*_quotas(written), *_budgets_in_money(written)):
        if not isinstance(prices, dict):
            yield path, "is in money, and nothing has a price; write prices, or another unit"
        elif (known := _currency(prices)) and known != currency:
            yield path, f"is in {currency}, and prices are in {known}; write {known}"
        elif isinstance(models := prices.get("models"), dict) and ANY not in models:
            yield path, 'is in money, and models without a price would cost none; write prices.models."*"'


def _currency(prices: Mapping[str, object]) -> str:
    try:
        return currency_of(prices.get("currency"))
    except WrongValueError:
        return ""


def _quotas(written: Mapping[str, object]) -> Iterator[tuple[Path, str]]:
    for at, route in enumerate(items(written.get("routes"))):
        for number, quota in enumerate(items(mapping(route).get("quotas"))):
            try:
                allowance = window(mapping(quota).get("allow"))
            except WrongValueError:
                continue
            if allowance.currency:
                yield ("routes", at, "quotas", number, "allow"), allowance.currency


def _budgets(written: Mapping[str, object]) -> Iterator[tuple[Path, Mapping[str, object]]]:
    callers = mapping(written.get("callers"))
    places: list[tuple[Path, object]] = [(("callers", "default"), callers.get("default"))]
    places += [(("callers", "known", at), each) for at, each in enumerate(items(callers.get("known")))]
    for path, caller in places:
        budget = mapping(caller).get("run_budget")
        if isinstance(budget, dict):
            yield (*path, "run_budget"), budget


def _budgets_in_money(written: Mapping[str, object]) -> Iterator[tuple[Path, str]]:
    for path, budget in _budgets(written):
        try:
            yield (*path, "money"), money(budget.get("money")).currency
        except WrongValueError:
            continue
