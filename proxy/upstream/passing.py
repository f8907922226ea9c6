"""The caller's side of an exchange, with an eye or a hand in between: what all who stand there pass on."""

from __future__ import annotations

from collections.abc import Callable

from proxy.upstream.contract import Downstream, Headers


class Passing(Downstream):
    """Passes everything on to `_caller`, as it comes. A base class: who looks or changes overrides."""

    __slots__ = ("_caller",)

    def __init__(self, caller: Downstream) -> None:
        self._caller = caller

    def start(self, status: int, headers: Headers) -> None:
        """The head of the answer."""
        self._caller.start(status, headers)

    def write(self, piece: bytes) -> None:
        """A piece of it. Raises CallerGone."""
        self._caller.write(piece)

    def end(self) -> None:
        """It is complete."""
        self._caller.end()

    @property
    def slow(self) -> bool:
        """As the caller."""
        return self._caller.slow

    async def drained(self) -> None:
        """As the caller's."""
        await self._caller.drained()

    def flush(self) -> None:
        """As the caller's."""
        self._caller.flush()

    async def next_body(self) -> bytes | memoryview | None:
        """As the caller's."""
        return await self._caller.next_body()

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """As the caller's."""
        self._caller.on_gone(callback)
