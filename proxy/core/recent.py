"""A bounded table that keeps what was asked for lately."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


class Recent(Generic[K, T]):
    """At most `most` rows. Two generations: when the young one is half of that, the old one is forgotten.

    What is used stays, for it is young again; no row is moved more than once a generation, and none is
    walked. Precedent: the two lists of 2Q (Johnson & Shasha, VLDB 1994), without its promotion by age.
    """

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, most: int) -> None:
        self._half = max(1, most // 2)
        self._young: dict[K, T] = {}
        self._old: dict[K, T] = {}

    def __len__(self) -> int:
        """Rows kept."""
        return len(self._young) + len(self._old)

    def get(self, key: K) -> T | None:
        """The row under a key, if it is still there."""
        row = self._young.get(key)
        if row is None:
            row = self._old.pop(key, None)
            if row is not None:
                self.put(key, row)
        return row

    def put(self, key: K, row: T) -> None:
        """Keep a row that is not there."""
        if len(self._young) >= self._half:
            self._old = self._young
            self._young = {}
        self._young[key] = row
