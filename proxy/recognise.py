"""From a request to a call: which route, who, how urgent, until when, and whether it comes again.

Reads headers; the body only where the decision needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from proxy.admission import Admission
from proxy.core.call import Call
from proxy.core.costs import Costs
from proxy.core.repeats import Key, Repeats, Trace
from proxy.counting import Count
from proxy.dialects import dialect_named
from proxy.dialects.base import Answer, Ask, Malformed
from proxy.dialects.estimate import size_of, size_unread
from proxy.dialects.fingerprint import Digests
from proxy.dialects.in_body import Said
from proxy.identity import BadHeader, Identity, deadline_s, sdk_says_retry, target_mark
from proxy.peeking import PEEKED_BYTES, ask_for_cost, ask_of, said_of, tells_cost
from proxy.routing import Match, Route, Rung, Table
from proxy.telemetry import Telemetry
from proxy.upstream import Result, UnsendableRequest
from proxy.wire import SMALL_BYTES, TooLarge, Wire

ASKABLE: Final = b"/chat/completions"

UNKNOWN_BYTES: Final = 64 * 1024
"""What a body of no declared length is taken to keep in memory while its call waits."""

MOST_KEPT_BYTES: Final = 1024 * 1024
"""Of a body no more than about this is read before its call is admitted (`listener/reading.py`)."""

MOST_TOOL_CHARS: Final = 128
"""Of a tool's name, as far as it is told apart. Precedent: MCP's own limit on tool names, 128."""

MOST_MODEL_CHARS: Final = 128
"""Of a model's name, as far as it is told apart. Azure's deployments have 64 at most, fine-tuned names of
OpenAI about 80."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Everything a call needs on its way. Replaced whole by a reload; what counts lives on."""

    table: Table
    identity: Identity
    peek_bytes: int
    admission: Admission
    repeats: Repeats
    digests: Digests
    telemetry: Telemetry
    costs: Costs


class Arrival:
    """A recognised call and where it goes. `until` is the caller's own deadline, in monotonic seconds.

    `not_before`, where it is not 0, is when it may ask to be admitted: it repeats at once what was cut.
    `count` is None where no tokens are counted.
    """

    __slots__ = ("ask", "call", "count", "key", "method", "not_before", "rest", "route", "until")

    def __init__(
        self, call: Call, method: bytes, route: Route, rest: bytes, ask: Ask | None, key: Key, until: float
    ) -> None:
        self.call = call
        self.method = method
        self.route = route
        self.rest = rest
        self.ask = ask
        self.key = key
        self.until = until
        self.not_before = 0.0
        self.count: Count | None = None

    def ended(self, result: Result) -> None:
        """An attempt has ended so: by that its tokens are counted."""
        if self.count is not None:
            self.count.result = result

    def goes_to(self, rung: Rung) -> None:
        """It tries this rung now: by its model it is counted and paid for, where models are."""
        call, prices = self.call, self.route.prices
        if self.ask is not None:
            call.model = (rung.model or self.ask.model)[:MOST_MODEL_CHARS]
        if prices is not None and (estimate := call.estimate) is not None:
            call.price = price = prices.of(call.model)
            call.money = 0 if price is None else price.cost(estimate.input, estimate.output)

    def repeats(self, trace: Trace | None, headers: dict[bytes, bytes], now: float) -> None:
        """It repeats the call of `trace`; None: none that is known."""
        self.call.is_retry = _is_retry(trace, headers, now)
        if trace is not None:
            self.call.ticket = trace.ticket
            self.not_before = trace.not_before

    @property
    def exempt(self) -> bool:
        """Never refused for want of room: an MCP session lives by these (clients.md, "MCP clients").

        Besides what its messages say of themselves, the session's event stream (GET), which would hold a
        permit for as long as an agent is there, and its end (DELETE). They have no body that was read.
        """
        if self.ask is not None:
            return self.ask.exempt
        return self.route.dialect.is_session(self.method)

    @property
    def opens(self) -> bool:
        """Does it begin an MCP session or its event stream? Elsewhere, then, while this proxy drains."""
        return self.method == b"GET" if self.ask is None else self.ask.method == "initialize"


async def recognise(wire: Wire, serving: Serving, now: float) -> Arrival | Answer:
    """The call that a request makes, or why it makes none. Raises CallerGone.

    The one place before admission that may wait: for a body that the decision needs and that is not here yet.
    """
    match = serving.table.find(wire.path)
    if match is None:
        return _unknown(serving)
    route = match.route
    headers = {name: value for name, value in wire.headers}  # noqa: C416 - half the price of `dict()`, compiled
    if (match.climbs or b"upgrade" in headers) and (answer := _barred(match, headers, serving)) is not None:
        return answer
    peek_bytes, idle_s = serving.peek_bytes, route.ladder[0].upstream.idle_s
    try:
        ask = match.ask
        said: Said | None = None
        if (route.reads_body and ask is None) or route.dialect.needs_body(wire.method, wire.path):
            ask = await ask_of(wire, route, headers, peek_bytes)
        counts = match.costs_tokens and wire.method == b"POST"
        if counts and ask is match.ask and tells_cost(wire, headers):
            here = wire.is_here(SMALL_BYTES)  # as nearly always; to await it costs a microsecond
            ask = ask_for_cost(
                match, wire.take_arrived() if here else await wire.read_all(PEEKED_BYTES, idle_s=idle_s)
            )
        if route.in_body is not None:
            said = await said_of(wire, headers, route, serving.identity, peek_bytes)
        arrival = _arrival(wire, match, headers, ask, said, serving, now)
        trace: Trace | None = None
        if route.counts_retries:
            mark: bytes | None = None
            if _needs_digest(wire, arrival.key, serving, now):
                await wire.read_all(peek_bytes, idle_s=idle_s)
                mark = mark_of(wire, serving)
            trace = serving.repeats.match(arrival.key, mark, now) if serving.repeats else None
            arrival.repeats(trace, headers, now)
        if counts:
            arrival.count = _count(wire, match, arrival, trace, serving)
            serving.repeats.followers.came(arrival.key, arrival.call.tokens)
    except (Malformed, BadHeader, TooLarge) as error:
        return complaint(error, route, serving)
    return arrival


def _barred(match: Match, headers: dict[bytes, bytes], serving: Serving) -> Answer | None:
    """What is relayed to nobody: WebSocket, and a path out of its route."""
    route = match.route
    if headers.get(b"upgrade", b"").lower() == b"websocket":
        return route.dialect.error(501, "websocket_not_relayed", "WebSocket is not relayed by this proxy.")
    if match.climbs:
        return complaint(UnsendableRequest("The path leads out of its route."), route, serving)
    return None


def _unknown(serving: Serving) -> Answer:
    serving.telemetry.unknown_route()
    known = ", ".join(serving.table.prefixes)
    message = f"No route has this path. Configured prefixes: {known}"
    return dialect_named("rest").error(404, "unknown_route", message)


def complaint(
    error: Malformed | BadHeader | TooLarge | UnsendableRequest, route: Route, serving: Serving
) -> Answer:
    """The answer to a request that makes no call, in its dialect's shape. Says what to change."""
    serving.telemetry.malformed(route.name)
    match error:
        case Malformed():
            return route.dialect.error(400, error.code, str(error))
        case BadHeader():
            return route.dialect.error(400, "bad_header", str(error))
        case UnsendableRequest():
            return route.dialect.error(400, "unsendable_request", str(error))
        case TooLarge():
            most = f"over {serving.peek_bytes} bytes"
            return route.dialect.error(413, "body_too_large", f"This route reads bodies, and this is {most}.")


def _arrival(
    wire: Wire,
    match: Match,
    headers: dict[bytes, bytes],
    ask: Ask | None,
    said: Said | None,
    serving: Serving,
    now: float,
) -> Arrival:
    """What headers and path say of a call, and what was `said` in its body. Raises BadHeader."""
    route, identity = match.route, serving.identity
    standing = identity.caller(headers)
    rank, understood = identity.rank(headers, standing, said)
    if not understood:
        serving.telemetry.unknown_priority(route.name)
    total_s, patience_s = deadline_s(headers)
    if said is None or route.in_body is None:
        run, agent, parent = identity.runs.of(headers, standing.name)
    else:
        run, agent, parent = identity.runs.of(headers, standing.name, said.run, route.in_body.run_before)
    call = Call(
        route=route.name,
        caller=standing.name,
        run=run,
        agent=agent,
        parent=parent,
        tool=(match.tool or (ask.tool if ask is not None else ""))[:MOST_TOOL_CHARS],
        rank=rank,
        arrived_at=now,
        deadline=now + patience_s,
        weight=standing.weight,
        until=now + total_s,
        size=min(wire.length if wire.length is not None else UNKNOWN_BYTES, MOST_KEPT_BYTES),
    )
    key = (standing.name, run, target_mark(wire.path, wire.query), wire.length or 0)
    return Arrival(call, wire.method, route, match.rest, ask, key, now + total_s)


def _count(wire: Wire, match: Match, arrival: Arrival, repeated: Trace | None, serving: Serving) -> Count:
    """Estimate what the call costs; its body's twin, where it repeats one, cost the same."""
    ask, call = arrival.ask, arrival.call
    if ask is not None:
        arrival.goes_to(arrival.route.ladder[0])
    is_chat = arrival.route.dialect.name == "openai" and match.rest.endswith(ASKABLE)
    count = Count(
        serving.costs,
        serving.telemetry,
        call,
        size_of(wire.body) if ask is not None and wire.body is not None else size_unread(wire.length),
        ask,
        prices=arrival.route.prices,
        input_only=match.input_only,
        may_ask=is_chat and ask is not None and ask.stream and not ask.tells,
    )
    if repeated is not None and repeated.tokens and wire.mark is not None and repeated.digest == wire.mark:
        count.cost_as_before(repeated.tokens)
    return count


def _needs_digest(wire: Wire, key: Key, serving: Serving, now: float) -> bool:
    """Must the body be here to tell whether this call is a repeat?

    One of no declared length may prove too large when a part of it is read, and gone for the relay.
    """
    known = not wire.has_body or (wire.length is not None and wire.length <= serving.peek_bytes)
    return known and bool(serving.repeats) and serving.repeats.wants_digest(key, now)


def _is_retry(trace: Trace | None, headers: dict[bytes, bytes], now: float) -> bool:
    """Whether the retry budget pays for this call, which repeats the one of `trace`.

    A return that we asked for, at the instant told, is none: it reached no upstream before. What an SDK
    counts as a retry is one, unless it is such a return.
    """
    return not trace.invites(now) if trace is not None else sdk_says_retry(headers)


def mark_of(wire: Wire, serving: Serving) -> bytes | None:
    """What a call's body is known by, taken once; None where the body was not kept."""
    if wire.mark is None and wire.body is not None:
        wire.mark = serving.digests.of(wire.body)
    return wire.mark
