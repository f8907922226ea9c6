"""A cap as it stands: how many calls may be in flight at once under one key."""

from __future__ import annotations

from typing import Final

UNBOUNDED: Final = 1_000_000_000
"""Slots of a cap that is never full."""


class Cap:
    """At most `slots` calls in flight at once under `key`.

    `slots` may change from call to call where it is learnt: a smaller one lets holders finish.
    `held_back` of them are kept free for more important classes than the one that asks (0: none). `shared`
    is how many all replicas together may have in flight, 0 where each counts for itself; and `leased` how
    many of those are this one's for now.
    """

    __slots__ = ("held_back", "key", "leased", "shared", "slots")

    def __init__(self, key: str, slots: int, shared: int = 0) -> None:
        self.key = key
        self.slots = slots
        self.shared = shared
        self.leased = UNBOUNDED
        self.held_back = 0

    def lease(self, slots: int | None) -> None:
        """So many are this process's for now; None: as many as there are."""
        self.leased = UNBOUNDED if slots is None else slots

    @property
    def here(self) -> int:
        """How many calls this process can expect to have in flight."""
        return self.slots if self.slots <= self.leased else max(1, self.leased)
