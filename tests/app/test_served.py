"""What a request leaves behind on its connection once it is answered: nothing."""

from __future__ import annotations

from collections.abc import Callable

from proxy.dialects.meter import Meter
from proxy.wire import Wire


class Kept:
    """A connection that stays open for the next request."""

    peer = b""
    scheme = "http"
    slow = gone = False

    def __init__(self) -> None:
        self.told: list[Callable[[], None] | None] = []
        self.written = b""

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        self.told.append(callback)

    def write(self, piece: bytes) -> None:
        self.written += piece

    async def drained(self) -> None: ...
    def resume_reading(self) -> None: ...
    def reset(self, *, hard: bool = False) -> None: ...
    def answered(self, wire: Wire) -> None: ...
    def served(self, wire: Wire) -> None: ...


def test_no_body_and_no_meter_stay_with_an_idle_connection():
    wire = Wire(Kept())
    wire.arrive(b"the prompt")
    wire.meter = Meter()
    wire.body = b"the prompt"
    wire.served()
    assert (wire.body, wire.meter, wire._arrived) == (None, None, [])


def test_the_watch_over_the_next_request_is_not_taken_away():
    connection = Kept()
    wire = Wire(connection)
    wire.on_gone(None)
    assert connection.told == [None]
    wire.answer(200, [], b"")
    wire.on_gone(None)
    assert connection.told == [None], "by then the callback is the next request's"
    wire.on_gone(list)
    assert connection.told == [None, list]
