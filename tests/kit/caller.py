"""A caller as the relay sees it: the real interface, with gates where a test wants it slow or gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from proxy.upstream import CallerGone
from tests.kit.waiting import BOUND_S


class FakeCaller:
    """Records the answer. Sends `pieces` as its body, then, if `hangs`, nothing and no end.

    Hold `taking` (clear it) to be slow: what is written then is taken when it is set again.
    """

    def __init__(self, pieces: Iterable[bytes] = (), *, hangs: bool = False) -> None:
        self._pieces = list(pieces)
        self._hangs = hangs
        self._callback: Callable[[], None] | None = None
        self._pulled = asyncio.Event()
        self._something = asyncio.Event()
        self.taking = asyncio.Event()
        self.taking.set()
        self.is_gone = False
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.pieces: list[bytes] = []
        self._untaken: list[bytes] = []
        self.ended = False
        self.pulls = 0
        self.flushes = 0

    async def next_body(self) -> bytes | None:
        self.pulls += 1
        if self.is_gone:
            raise CallerGone
        if self._pieces:
            return self._pieces.pop(0)
        if self._hangs:
            self._pulled.set()
            await asyncio.Event().wait()
        return None

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status, self.headers = status, headers
        self._something.set()

    @property
    def slow(self) -> bool:
        return not self.taking.is_set()

    def write(self, piece: bytes) -> None:
        if self.is_gone:
            raise CallerGone
        assert piece, "an empty piece is no piece"
        self._untaken.append(piece)
        if not self.slow:
            self._take()

    async def drained(self) -> None:
        await self.taking.wait()
        self._take()

    def _take(self) -> None:
        taken, self._untaken = self._untaken, []
        self.pieces += taken
        self.body += b"".join(taken)
        self._something.set()

    def flush(self) -> None:
        self.flushes += 1

    def end(self) -> None:
        self.ended = True

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        self._callback = callback
        if callback is not None and self.is_gone:
            callback()

    def leave(self) -> None:
        """Disconnect."""
        self.is_gone = True
        if self._callback is not None:
            self._callback()

    @property
    def is_watched(self) -> bool:
        """Would somebody be told if it left?"""
        return self._callback is not None

    async def has(self, body: bytes) -> None:
        """Wait until this much of the answer has come."""
        await self.until(lambda: self.body == body)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something came after which the condition holds."""
        async with asyncio.timeout(BOUND_S):
            while not condition():
                self._something.clear()
                await self._something.wait()

    def all(self, name: bytes) -> list[bytes]:
        """Every value of one header of the answer."""
        return [value for key, value in self.headers if key == name]
