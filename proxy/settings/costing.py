"""Where tokens are counted, and what they are paid by."""

from __future__ import annotations

from proxy.core.prices import GRAIN, Price, Prices
from proxy.dialects import dialect_named
from proxy.settings.routes import Route
from proxy.settings.schema import Settings


def prices_of(settings: Settings) -> Prices | None:
    """The table of prices; None where nothing has one."""
    if settings.prices is None:
        return None
    models = {
        name: Price(
            round(price.input * GRAIN),
            round(price.output * GRAIN),
            round((price.input if price.cached is None else price.cached) * GRAIN),
            round((price.input if price.cache_write is None else price.cache_write) * GRAIN),
        )
        for name, price in settings.prices.models.items()
    }
    return Prices(settings.prices.currency, models)


def is_model_api(settings: Settings, route: Route) -> bool:
    """Do its calls cost tokens that somebody tells?"""
    return dialect_named(settings.upstreams[route.upstream].dialect).is_model_api


def counts_tokens(settings: Settings, route: Route) -> bool:
    """Must its calls be estimated and their answers read?

    For its own allowances; and on every route that knows tokens for prices, and for a run's budget of them.
    """
    if any(bucket.rate.unit != "requests" for bucket in route.buckets):
        return True
    if any(quota.allow.unit != "requests" for quota in route.quotas):
        return True
    return is_model_api(settings, route) and (settings.prices is not None or _budgets_in_tokens(settings))


def _budgets_in_tokens(settings: Settings) -> bool:
    callers = settings.callers
    budgets = [callers.default.run_budget, *(caller.run_budget for caller in callers.known)]
    return any(budget is not None and budget.tokens is not None for budget in budgets)
