"""One call's tokens: estimated at entry, and counted however it ends.

What a provider says is exact. What it does not say is counted by what was sent and delivered: its input as
estimated, its output by the events that carried some. Nothing is lost: whoever holds the lease asks.
"""

from __future__ import annotations

from proxy.core.call import Call
from proxy.core.costs import Costs
from proxy.core.prices import Prices
from proxy.core.used import Counter, Estimate, Used
from proxy.core.verdict import Reason
from proxy.dialects.base import Ask
from proxy.dialects.estimate import Size, estimate
from proxy.dialects.meter import Meter
from proxy.dialects.removing import Remover
from proxy.telemetry import Telemetry
from proxy.upstream import Result

TIMED_OUT = Reason.UPSTREAM_TIMEOUT
"""For the speed of `is`, as `verdict.SUCCEEDED`."""


class Count(Counter):
    """Of one call. `begin` each attempt, and set its `result` when it has ended; without, it was cancelled.

    `may_ask`: its answer is a stream of Chat Completions whose caller did not ask for the usage.
    """

    __slots__ = (
        "_answers", "_ask", "_call", "_costs", "_estimate", "_input_only", "_meter", "_prices", "_size",
        "_telemetry", "_upstream", "may_ask", "result",
    )  # fmt: skip

    def __init__(
        self,
        costs: Costs,
        telemetry: Telemetry,
        call: Call,
        size: Size,
        ask: Ask | None,
        *,
        prices: Prices | None,
        input_only: bool,
        may_ask: bool,
    ) -> None:
        self._costs = costs
        self._telemetry = telemetry
        self._call = call
        self._size = size
        self._ask = ask
        self._answers = 1 if ask is None else ask.answers
        self._input_only = input_only
        self._prices = prices
        self._upstream = ""
        self._meter: Meter | None = None  # before the first attempt
        self.may_ask = may_ask
        self.result: Result | None = None
        self._estimate = estimate(costs, call.caller, self._model, size, ask, input_only=input_only)
        call.estimate = self._estimate
        call.tokens = self._estimate.tokens

    def cost_as_before(self, tokens: float) -> None:
        """It repeats a call that was estimated to cost so much: what it was told then goes by that."""
        given = min(self._estimate.input, tokens)
        sure_input = min(self._estimate.sure_input, given)
        again = Estimate(given, tokens - given, sure_input, self._estimate.sure_output)
        self._call.estimate = self._estimate = again
        self._call.tokens = tokens

    def begin(self, upstream: str, *, asked: bool) -> Meter:
        """It is sent to this upstream: what reads the answer. `asked`: for its usage, and by us alone."""
        self._upstream = upstream
        self._meter = meter = Meter(Remover() if asked else None)
        self.result = None
        return meter

    def used(self) -> Used:
        """What this attempt has used."""
        used = self._counted()
        self._telemetry.tokens(self._call.route, self._estimate.tokens, used)
        if self._prices is not None:
            price = self._call.price
            cost = None if price is None else price.cost_of(used)
            self._telemetry.spending.paid(self._call.route, self._upstream, self._prices.currency, cost)
        return used

    @property
    def _model(self) -> str:
        return self._call.model if self._ask is not None else ""

    def _counted(self) -> Used:
        meter, result = self._meter, self.result
        if meter is None:
            return Used(self._estimate.input)
        meter.close()
        complete = result is not None and result.complete
        status = meter.status if result is None or result.status is None else result.status
        if meter.input is not None or meter.output is not None:
            return self._told(meter, complete=complete, failed=status >= 400)
        if status >= 400:
            return Used(exact=complete)  # no provider counts tokens for an error
        if not status and not self._was_at_work(result):
            return Used()
        return Used(self._estimate.input, self._delivered(meter))

    def _told(self, meter: Meter, *, complete: bool, failed: bool) -> Used:
        used = Used(exact=complete and meter.input is not None, cached_is_free=meter.apart)
        if meter.input is None:
            used.input = self._estimate.input
        else:
            used.input = float(meter.input)
            used.cached = float(meter.cached or 0)
            used.written = float(meter.written or 0)
        if meter.output is not None:
            used.output = float(meter.output)
        if not complete and not self._input_only:
            # Anthropic says at first that there was one token, and no more until the end.
            used.output = max(used.output, self._costs.streamed(self._model, meter.pieces))
        if used.exact and not failed:
            self._learn(used, meter)
        return used

    def _delivered(self, meter: Meter) -> float:
        """What was delivered of an answer that does not tell, in tokens."""
        if self._input_only or not meter.bytes:
            return 0.0
        if meter.pieces:
            return self._costs.streamed(self._model, meter.pieces)
        # It was written before it was sent, or nobody can read it: then it is as long as usual.
        allowed = None if self._ask is None else self._ask.allowed
        return self._costs.unread_output_of(self._call.caller, self._model, allowed) * self._answers

    def _was_at_work(self, result: Result | None) -> bool:
        """Did an upstream that gave no answer take the call up? Not if it broke down, or was not reached."""
        return result is None or (result.sent and (result.gone or result.reason is TIMED_OUT))

    def _learn(self, used: Used, meter: Meter) -> None:
        if not self._size.files:
            self._costs.told_input(self._model, self._size.text_bytes, used.input + used.cached)
        if not self._input_only and meter.output is not None:
            each = self._answers
            self._costs.told_output(self._call.caller, self._model, used.output / each, meter.pieces / each)
