"""A cap as it stands: how many calls may be in flight at once under one key."""

from __future__ import annotations

from typing import Final

UNBOUNDED: Final = 1_000_000_000
"""Slots of a cap that is never full."""


class Cap:
    """At most `slots` calls in flight at once under `key`.

    `slots` may change from call to call where it is learnt: a smaller one lets holders finish.
    `held_back` of them are kept free for more important classes than the one that asks (0: none).
    """

    __slots__ = ("held_back", "key", "slots")

    def __init__(self, key: str, slots: int) -> None:
        self.key = key
        self.slots = slots
        self.held_back = 0
