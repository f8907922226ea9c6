"""What arrived: one call of an agent, as far as a decision needs to know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.core.book import Ticket
    from proxy.core.prices import Price
    from proxy.core.tools import Tool
    from proxy.core.used import Estimate


class Call:
    """One call, recognised: who asks for what, how urgently and until when.

    `caller` and `run` are hashes or configured names, never a credential. `rank` counts from 0, the last
    class to be shed. `deadline` is in monotonic seconds: an answer that starts later is worthless.
    `is_retry` is true for a repeat that the retry budget pays for; a return that we ourselves asked for
    (`Retry-After`) is none. `paid` is true once it has spent its caller's and its route's allowances, and
    those of `paid_model`: what follows a failed attempt on another upstream spends them no second time.
    `agent` is who of the run makes it, and `parent` who made that one: hashes, "" where it is not said.
    `model` is the one it goes to, where its body was read; a fallback may name another. `tokens` is the
    estimate of what the call costs, where its route counts tokens; 0.0 for a call that costs none.
    `estimate` is the same in its parts; None: nobody asks for them. `money` is the same by the `price` of
    its model, in millionths, where its route has prices. `pool` tells apart calls that go by
    different allowances of one upstream, by its caller's own key there; "" for all that go by ours. `going`,
    `charged` and `apart` are the gate's, from `offer` on: it belongs to a run that is under way; the run
    whose budget it spends, "" for none; its tool, where that has a queue or a breaker of its own.

    A plain slotted object, not a dataclass: one is made for every request.
    """

    __slots__ = (
        "agent", "apart", "arrived_at", "caller", "charged", "deadline", "estimate", "going", "is_retry",
        "model", "money", "paid", "paid_model", "parent", "pool", "price", "rank", "route", "run", "size",
        "ticket", "tokens", "tool", "until", "weight",
    )  # fmt: skip

    def __init__(
        self,
        *,
        route: str,
        caller: str,
        arrived_at: float,
        run: str = "",
        agent: str = "",
        parent: str = "",
        tool: str = "",
        model: str = "",
        rank: int = 0,
        deadline: float = float("inf"),
        is_retry: bool = False,
        weight: float = 1.0,
        tokens: float = 0.0,
        until: float = float("inf"),
        size: int = 0,
        ticket: Ticket | None = None,
    ) -> None:
        self.route = route
        self.caller = caller
        self.run = run or caller
        self.agent = agent
        self.parent = parent
        self.tool = tool
        self.model = model
        self.rank = rank
        self.arrived_at = arrived_at
        self.deadline = deadline
        self.is_retry = is_retry
        self.paid = False
        self.paid_model = ""
        self.going = False
        self.apart: Tool | None = None
        self.pool = ""
        self.weight = weight
        self.tokens = tokens
        self.estimate: Estimate | None = None
        self.until = until
        self.size = size
        self.ticket = ticket
        self.charged = ""
        self.money = 0
        self.price: Price | None = None

    def like(self, *, route: str, tool: str, arrived_at: float) -> Call:
        """Another call of the same agent, as urgent and as patient: for this tool, by this route. What it
        costs, and whether it comes again, is its own.
        """
        return Call(
            route=route,
            caller=self.caller,
            run=self.run,
            agent=self.agent,
            parent=self.parent,
            tool=tool,
            rank=self.rank,
            arrived_at=arrived_at,
            deadline=self.deadline,
            weight=self.weight,
            until=self.until,
            size=self.size,
        )

    @property
    def has_run(self) -> bool:
        """Did its agent say to which task it belongs?"""
        return self.run is not self.caller and self.run != self.caller

    @property
    def fails_apart(self) -> bool:
        """Has its tool a breaker of its own?"""
        return self.apart is not None and self.apart.breaker is not None

    def __repr__(self) -> str:
        """Printed by failing tests and by nothing else."""
        tool = f" tool={self.tool}" if self.tool else ""
        retry = " retry" if self.is_retry else ""
        return f"<Call {self.route} rank={self.rank} caller={self.caller}{tool}{retry}>"
