"""The advice of a refusal, completed: what only the request and its route can tell.

Called for a refusal that has advice, or whose route names other ways; any other costs two tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.core.advice import Advice
from proxy.core.call import Call
from proxy.core.verdict import Kind, Reason, Refusal, kind_of
from proxy.dialects.advice import output_that_fits
from proxy.recognise import Arrival, Serving
from proxy.routing import Advises, Way
from proxy.settings.costing import counts_tokens

if TYPE_CHECKING:
    from proxy.settings import Settings

ELSEWHERE: Final = frozenset({Kind.COME_BACK, Kind.UNAVAILABLE})
"""What another route may have room for. What failed may have been done, and a repeat is one anywhere."""

HERE: Final = frozenset({Reason.DRAINING, Reason.STORE_DOWN})
"""But not where it is this proxy itself that cannot."""


def advises_of(settings: Settings, name: str) -> Advises | None:
    """What the operator lets a route's refused callers be told; None: nothing."""
    routes = {route.name: route for route in settings.routes}
    stated = routes[name].advise
    if stated is None:
        return None
    ways = []
    for other in stated.routes:
        route = routes[other]
        ways.append(Way(other, route.path, route.upstream, counts_tokens(settings, route)))
    return Advises(tuple(ways), stated.model or "")


def complete_advice(arrival: Arrival, refusal: Refusal, serving: Serving, now: float) -> None:
    """Add to a refusal's advice what this request can do with it."""
    advice = refusal.advice
    if advice is not None and advice.tokens:
        ask, estimate = arrival.ask, arrival.call.estimate
        if ask is not None and estimate is not None:
            advice.output = output_that_fits(ask, advice.tokens, estimate.input)
        if refusal.ticket is not None:
            serving.repeats.followers.told(arrival.key, advice.tokens, refusal.ticket)
    advises, reason = arrival.route.advises, refusal.reason
    if advises is None or reason in HERE:
        return
    if kind_of(reason) not in ELSEWHERE and reason is not Reason.TOO_DEAR:
        return
    route = _elsewhere(advises, arrival.call, serving, now)
    model = advises.model if reason is not Reason.TOO_DEAR else ""
    if route or model:
        if advice is None:
            advice = refusal.advice = Advice()
        advice.route, advice.model = route, model


def _elsewhere(advises: Advises, call: Call, serving: Serving, now: float) -> str:
    """The path of the first of the ways that has room for this call now, or ""."""
    gate = serving.admission.gate
    for way in advises.ways:
        if way.counts_tokens and not call.tokens:
            continue  # what it costs there is not known
        there = call.like(route=way.route, tool=call.tool, arrived_at=now)
        there.is_retry = call.is_retry
        there.charged = call.charged
        if way.counts_tokens:
            there.tokens = call.tokens
            there.estimate, there.money, there.price = call.estimate, call.money, call.price
        if gate.checks.has_room(there, gate.targets[way.upstream], now):
            return way.path
    return ""
