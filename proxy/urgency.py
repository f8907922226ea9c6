"""How urgent a call is where its caller states no class of ours: hints that agents send by themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

PRIORITY: Final = b"priority"
"""The header of RFC 9218: `u=0` (most urgent) to `u=7`, and `i`, which says nothing about urgency."""

DEFAULT_URGENCY: Final = b"3"
"""RFC 9218 §4.1, where the field does not state one, or none that there is."""

MOST_BYTES: Final = 256
"""A longer field says nothing: nobody's priority needs so much."""

UNSAID: Final = -1

_MEMBER: Final = re.compile(rb"[ \t]*([a-z*][a-z0-9_.*-]*)(?:=([^;]*))?(?:;.*)?", re.DOTALL)


class Hint:
    """One header, or (`header` is b"") a member of the body, and the ranks that its values stand for."""

    __slots__ = ("header", "ranks")

    def __init__(self, header: bytes, ranks: Mapping[bytes, int]) -> None:
        """Values in lower case; those of the header `priority` are the digits of its urgencies."""
        self.header = header
        self.ranks = dict(ranks)

    def rank(self, headers: dict[bytes, bytes], in_body: bytes) -> int:
        """UNSAID, where it is absent or has a value that stands for no rank."""
        value = headers.get(self.header) if self.header else in_body
        if not value:
            return UNSAID
        value = urgency(value) if self.header == PRIORITY else value.strip().lower()
        return self.ranks.get(value, UNSAID)


class Hints:
    """All of them; the first that says something is believed."""

    __slots__ = ("_hints",)

    def __init__(self, hints: Sequence[Hint] = ()) -> None:
        self._hints = tuple(hints)

    def __bool__(self) -> bool:
        """Is there any?"""
        return bool(self._hints)

    def wants_body(self, headers: dict[bytes, bytes]) -> bool:
        """Does no header say it that is asked before the body is?"""
        for hint in self._hints:
            if not hint.header:
                return True
            if hint.rank(headers, b"") != UNSAID:
                return False
        return False

    def rank(self, headers: dict[bytes, bytes], in_body: bytes = b"") -> int:
        """The rank that is hinted at, or UNSAID. `in_body` is what the body says, b"" for nothing."""
        for hint in self._hints:
            rank = hint.rank(headers, in_body)
            if rank != UNSAID:
                return rank
        return UNSAID


def urgency(field: bytes) -> bytes:
    """The urgency, `0` to `7`, that a Priority field (RFC 9218) states; b"" where it is none. Never raises.

    The last `u` counts (RFC 8941 §3.2). One that is none counts as the default, as does its absence.
    """
    if len(field) > MOST_BYTES:
        return b""
    found = DEFAULT_URGENCY
    for member in field.split(b","):
        read = _MEMBER.fullmatch(member)
        if read is None:
            return b""
        if read[1] == b"u":
            value = (read[2] or b"").strip()
            found = value if len(value) == 1 and value in b"01234567" else DEFAULT_URGENCY
    return found
