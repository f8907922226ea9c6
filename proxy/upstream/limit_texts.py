"""A limit that is told in the text of a 200: tools of MCP say so, and many an API of a tool besides.

What to look for is the operator's to say. An answer is looked at as it passes, its first bytes only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from proxy.core.leash import Leash
from proxy.core.verdict import OVERLOADED
from proxy.core.word import Word
from proxy.upstream.contract import Downstream, Headers, Result
from proxy.upstream.passing import Passing

SEARCHED_BYTES: Final = 4096
"""Of an answer. Who is over a limit is told so in a sentence; and a pattern of two repeats takes time that
grows with the square of this."""

SECONDS: Final = "seconds"
"""The group of a pattern that holds when to ask again, if it tells."""

LONGEST_WAIT_S: Final = 86_400.0


class LimitTexts:
    """The patterns of one upstream. A stateless judge: one for all its answers."""

    __slots__ = ("_patterns",)

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises re.error for what is no pattern."""
        self._patterns = [re.compile(pattern.encode(), re.IGNORECASE) for pattern in patterns]

    def find(self, text: bytes) -> Word | None:
        """What the beginning of an answer says, if it says that a limit was met."""
        for pattern in self._patterns:
            match = pattern.search(text)
            if match is not None:
                return Word([], refused=True, wait_s=_seconds(match), tool=True)
        return None


def _seconds(match: re.Match[bytes]) -> float | None:
    if SECONDS not in match.re.groupindex:
        return None
    told = match[SECONDS]
    try:
        seconds = float(told) if told is not None else 0.0
    except ValueError:
        return None
    return min(seconds, LONGEST_WAIT_S) if seconds > 0.0 else None


class Overheard(Passing):
    """The caller's side of an exchange, whose answer is looked at on its way. Passes everything on."""

    __slots__ = ("_looks", "_text", "_texts")

    def __init__(self, caller: Downstream, texts: LimitTexts) -> None:
        super().__init__(caller)
        self._texts = texts
        self._text = b""
        self._looks = False

    def word(self) -> Word | None:
        """What the answer said, once it has passed; None where that was nothing of a limit."""
        return self._texts.find(self._text) if self._text else None

    def start(self, status: int, headers: Headers) -> None:
        """The head of the answer. An error says what it is by its status."""
        self._looks = 200 <= status < 300
        self._caller.start(status, headers)

    def write(self, piece: bytes) -> None:
        """A piece of it. Raises CallerGone."""
        if self._looks:
            self._text += piece[: SEARCHED_BYTES - len(self._text)]
            self._looks = len(self._text) < SEARCHED_BYTES
        self._caller.write(piece)


def looked_at(caller: Downstream, texts: LimitTexts | None) -> Downstream:
    """The caller's side, with an eye on what passes if there is something to look for."""
    return caller if texts is None else Overheard(caller, texts)


def heed(downstream: Downstream, result: Result, leash: Leash) -> None:
    """An exchange is over: a limit that was told in its text counts as a 429, which is no failure."""
    if isinstance(downstream, Overheard) and (word := downstream.word()) is not None:
        result.outcome = OVERLOADED
        leash.heard(word)
