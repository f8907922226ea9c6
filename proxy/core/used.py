"""What a call costs in tokens: as estimated when it comes, as counted when it has ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from proxy.core.policy import Unit

_TOKENS: Final = Unit.TOKENS
_OUTPUT: Final = Unit.OUTPUT
"""For the speed of `is`, as `policy.REQUESTS`."""


class Estimate:
    """What a call is likely to cost: tokens that it sends, and those of its answer.

    `sure_input` and `sure_output` are as much of it as is certain: the text that was read and counted, the
    output that the caller itself allows. What is only learnt, or of a body that nobody read, is not, and
    keeps no call out for good.
    """

    __slots__ = ("input", "output", "sure_input", "sure_output")

    def __init__(
        self, input_: float, output: float, sure_input: float = 0.0, sure_output: float = 0.0
    ) -> None:
        self.input = input_
        self.output = output
        self.sure_input = sure_input
        self.sure_output = sure_output

    @property
    def tokens(self) -> float:
        """Both together."""
        return self.input + self.output

    def cost(self, unit: Unit, burst: float) -> float:
        """What the call is to reserve of a bucket of tokens that holds `burst`.

        More than that only where it is certain; else all of it, for what is really used is trued up.
        """
        if unit is _TOKENS:
            cost, sure = self.input + self.output, self.sure_input + self.sure_output
        elif unit is _OUTPUT:
            cost, sure = self.output, self.sure_output
        else:
            cost, sure = self.input, self.sure_input
        return burst if cost > burst >= sure else cost

    def __repr__(self) -> str:
        """Printed by failing tests and by nothing else."""
        return f"<Estimate {self.input:g} + {self.output:g}>"


class Used:
    """The tokens that a call used. THE value that buckets, budgets and prices are charged by.

    `input`: read anew, among them the `written`, which were also put into the provider's cache. `cached`:
    read from that cache, and none of `input`. `output`: of the answer, reasoning and tool calls included.
    `exact`: the provider said so; else it is counted by what was sent and delivered. `cached_is_free`: the
    provider's own rate limits do not count what is read from its cache (Anthropic's do not, OpenAI's do).
    """

    __slots__ = ("cached", "cached_is_free", "exact", "input", "output", "written")

    def __init__(
        self,
        input_: float = 0.0,
        output: float = 0.0,
        cached: float = 0.0,
        written: float = 0.0,
        *,
        exact: bool = False,
        cached_is_free: bool = False,
    ) -> None:
        self.input = input_
        self.output = output
        self.cached = cached
        self.written = written
        self.exact = exact
        self.cached_is_free = cached_is_free

    @property
    def counted_input(self) -> float:
        """What rate limits count of the input."""
        return self.input if self.cached_is_free else self.input + self.cached

    @property
    def tokens(self) -> float:
        """What rate limits count in all."""
        return self.counted_input + self.output

    def of(self, unit: Unit) -> float:
        """The same in the unit of a bucket that counts tokens."""
        if unit is _TOKENS:
            return self.tokens
        return self.output if unit is _OUTPUT else self.counted_input

    def __repr__(self) -> str:
        """Printed by failing tests and by nothing else."""
        how = "exact" if self.exact else "estimated"
        return f"<Used {self.input:g} + {self.output:g}, {self.cached:g} cached, {how}>"


class Counter(ABC):
    """Who counts one call while it runs, and can say at any moment what it has used."""

    __slots__ = ()

    @abstractmethod
    def used(self) -> Used:
        """What it has used, if it ends now. Asked once."""
        ...
