"""What an upstream says of its own allowances, with each answer: so much is left, until then."""

from __future__ import annotations

from typing import Final

REQUESTS: Final = "requests"
TOKENS: Final = "tokens"
INPUT_TOKENS: Final = "input tokens"
OUTPUT_TOKENS: Final = "output tokens"


class Said:
    """Of one allowance. `unit` is one of the four above; `name` tells two of one unit apart.

    `remaining` calls or tokens are left; `reset_s` from now all of it is back, or the next window begins
    (None: it does not say). `limit` is all of it. `refills`: all the time, as a bucket does; else all at
    once, at the reset. Nothing is negative or infinite.
    """

    __slots__ = ("limit", "name", "refills", "remaining", "reset_s", "unit")

    def __init__(
        self,
        unit: str,
        remaining: float,
        reset_s: float | None = None,
        limit: float | None = None,
        *,
        refills: bool = False,
        name: str = "",
    ) -> None:
        self.unit = unit
        self.name = name or unit
        self.remaining = remaining
        self.reset_s = reset_s
        self.limit = limit
        self.refills = refills

    def __repr__(self) -> str:
        """As a failing test shows it."""
        of = "" if self.limit is None else f" of {self.limit:g}"
        until = "" if self.reset_s is None else f", reset in {self.reset_s:g}s"
        return f"<Said {self.remaining:g}{of} {self.name}{until}{' refills' if self.refills else ''}>"


class Word:
    """What one answer said. `refused`: it was a 429, or as good as one; ask again in `wait_s`, if told.

    `final`: to ask again is no use (`x-should-retry: false`), whatever the time. `tool`: it is about the tool
    that was called, not about all of the upstream.
    """

    __slots__ = ("final", "refused", "said", "tool", "wait_s")

    def __init__(
        self,
        said: list[Said],
        *,
        refused: bool = False,
        wait_s: float | None = None,
        final: bool = False,
        tool: bool = False,
    ) -> None:
        self.said = said
        self.refused = refused
        self.wait_s = wait_s
        self.final = final
        self.tool = tool

    @property
    def holds(self) -> bool:
        """Is nobody to go before a certain time?"""
        return self.refused and self.wait_s is not None and not self.final

    def __repr__(self) -> str:
        """As a failing test shows it."""
        wait = "" if self.wait_s is None else f" wait={self.wait_s:g}s"
        return f"<Word{' refused' if self.refused else ''}{wait} {self.said}>"
