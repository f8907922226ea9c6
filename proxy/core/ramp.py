"""The slow start: an upstream that was down gets its callers back by and by, not all in one instant.

It comes back with cold caches and closed connections, to the backlog of the outage: what it could serve
yesterday kills it now (the second outage). So the cap begins at a few permits; each answer adds one, which
doubles them in each service time, as TCP does; a failure halves them.
"""

from __future__ import annotations


class Ramp:
    """A ceiling beside the cap: `slots` for the calls begun since `turn`, while it is `on`.

    Of these `since` are in flight, and `before` of those that began earlier. The latter are counted beside
    it: such a one may hang, and hold its permit for longer than the whole recovery takes.
    """

    __slots__ = ("before", "on", "since", "slots", "turn")

    def __init__(self) -> None:
        self.on = False
        self.slots = 0
        self.turn = 0
        self.before = self.since = 0

    @property
    def is_full(self) -> bool:
        """Must the next wait for another to end? Only while it is on."""
        return self.since >= self.slots

    @property
    def ceiling(self) -> int:
        """How many calls may be in flight in all. Only while it is on."""
        return self.slots + self.before

    def begin(self, slots: int, turn: int, before: int) -> None:
        """The upstream is back. Calls with an earlier `turn` began before."""
        self.on = True
        self.slots = slots
        self.turn = turn
        self.before = before
        self.since = 0

    def begun(self) -> None:
        """A call goes."""
        self.since += 1

    def ended(self, turn: int) -> None:
        """A call is over, however it ended."""
        if turn >= self.turn:
            self.since -= 1
        elif self.before:
            self.before -= 1

    def answered(self) -> None:
        """A call that began since was answered well."""
        self.slots += 1

    def failed(self) -> None:
        """A call that began since was not."""
        self.slots = max(1, self.slots // 2)

    def end(self) -> None:
        """The cap alone holds from now on."""
        self.on = False
