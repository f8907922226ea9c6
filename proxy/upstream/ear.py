"""Hears what one upstream says of its allowances, and tells a caller whom it refuses a time of its own."""

from __future__ import annotations

import time
from typing import Final

from proxy.core.leash import Leash
from proxy.core.word import Word
from proxy.upstream.allowance import word_of
from proxy.upstream.contract import Headers

ENOUGH: Final = 16
SELDOM: Final = 64
"""An upstream that said nothing with its first answers is listened to with every sixty-fourth, and with each
429: to read the head of every answer would cost all upstreams what a few need."""

SILENCE: Final = Word([])

TIMES: Final = frozenset({b"retry-after", b"retry-after-ms", b"x-ms-retry-after-ms"})


class Ear:
    """One upstream's. `has_heard`: it has said something at least once."""

    __slots__ = ("_answers", "has_heard")

    def __init__(self) -> None:
        self._answers = 0
        self.has_heard = False

    def listen(self, status: int, headers: Headers, leash: Leash) -> Headers:
        """The head of an answer has come, under this leash. Returns the head to be handed to the caller.

        Who are refused together would come again together, and be refused again: each is told its own time.
        """
        if not self.has_heard and status != 429:
            self._answers += 1
            if self._answers > ENOUGH and self._answers % SELDOM:
                return headers
        word = word_of(status, headers, time.time())
        if word is None:
            if self.has_heard and 200 <= status < 300:
                leash.heard(SILENCE)
            return headers
        if word.said or word.holds:
            self.has_heard = True
        return _with_time(headers, leash.heard(word))

    def __repr__(self) -> str:
        """As a debugger shows it."""
        return f"<Ear {'has heard' if self.has_heard else 'has heard nothing'}>"


def _with_time(headers: Headers, told_s: float | None) -> Headers:
    if told_s is None:
        return headers
    milliseconds = max(1, round(told_s * 1000))
    kept = [field for field in headers if field[0] not in TIMES]
    return [
        *kept,
        (b"retry-after", b"%d" % -(-milliseconds // 1000)),
        (b"retry-after-ms", b"%d" % milliseconds),
    ]
