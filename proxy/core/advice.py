"""What a refused caller could do differently, as far as that is known without looking for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.core.book import Ticket
    from proxy.core.repeats import Key

NEAR_BYTES: Final = 64
"""By so much a body may have changed in length when all that changed is how much output it allows: the
longest such member, `"max_completion_tokens":100000000,`, has half as many bytes."""

MOST: Final = 1024
"""Returns awaited at once; the oldest is forgotten first. Its place is then kept for its time, as for all."""


class Advice:
    """What is not known is 0, "" or false.

    `tokens`: a call that is estimated to cost no more passes now, or where this one never can (`too_dear`)
    some time. `output`: this very call is estimated at no more if it asks for so many tokens of output.
    `parallel`: where each caller has no more calls in flight, the cap that was full holds them all. `route`:
    the path of a route under which this call would have gone. `model`: one that its operator calls cheaper.
    `stop`: nothing more is to be had.
    """

    __slots__ = ("model", "output", "parallel", "route", "stop", "tokens")

    def __init__(self, tokens: int = 0, parallel: int = 0, stop: bool = False) -> None:
        self.tokens = tokens
        self.output = 0
        self.parallel = parallel
        self.route = ""
        self.model = ""
        self.stop = stop


class Followers:
    """Who was told that a smaller call would pass, while a place is kept for the same call later.

    Whoever sends the smaller one needs that place no longer, and it would stand in the way: what is kept for
    it is what the smaller one asks for.
    """

    __slots__ = ("_awaited",)

    def __init__(self) -> None:
        self._awaited: dict[tuple[str, str, bytes], tuple[int, int, Ticket]] = {}

    def __len__(self) -> int:
        """How many are awaited, at most."""
        return len(self._awaited)

    def told(self, key: Key, tokens: int, ticket: Ticket) -> None:
        """This call was told to cost `tokens` at most, or to return with its ticket."""
        if len(self._awaited) >= MOST:
            del self._awaited[next(iter(self._awaited))]
        self._awaited[key[:3]] = (key[3], tokens, ticket)

    def came(self, key: Key, tokens: float) -> None:
        """A call has come: if it is the smaller one, the place of the other is given back.

        It is known by its caller, run and path, by its length and by what it costs.
        """
        awaited = self._awaited.get(key[:3]) if self._awaited else None
        if awaited is None:
            return
        length, most, ticket = awaited
        if not ticket.is_open:
            del self._awaited[key[:3]]
        elif tokens <= most and abs(key[3] - length) <= NEAR_BYTES:
            del self._awaited[key[:3]]
            ticket.give_back()
