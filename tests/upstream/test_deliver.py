"""How long a slow caller may take: its time begins anew with each piece that it has taken."""

from __future__ import annotations

from typing import cast

from proxy.upstream import Result
from proxy.upstream.answer import COMPLETE, Answer
from proxy.upstream.connection import Connection
from proxy.upstream.deliver import deliver
from tests.kit.caller import FakeCaller


class Ahead:
    """A connection whose upstream is always ahead of the caller; counts whose turn it is."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.answer = Answer()
        self.answer.status = 200
        self.answer.phase = COMPLETE
        self.sent_at = None
        self.gone = self.over = False
        self.callers_turns = 0
        self._pieces = pieces

    def hand_over(self) -> None:
        self.callers_turns += 1

    def waits_for_caller(self) -> None: ...

    def take(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


class Slow(FakeCaller):
    """Takes each piece, but only when it is waited for."""

    @property
    def slow(self) -> bool:
        return bool(self._untaken)

    def write(self, piece: bytes) -> None:
        self._untaken.append(piece)


async def test_a_slow_callers_time_begins_anew_with_each_piece_that_it_takes():
    connection, caller, result = Ahead([b"one", b"two", b"three"]), Slow(), Result()
    await deliver(cast("Connection", connection), caller, result, lambda: 0.0)
    assert result.complete
    assert caller.body == b"onetwothree"
    assert connection.callers_turns == 1 + 3
