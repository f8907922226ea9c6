"""Hints on their way: to bytes, and back (`core/hints.py`)."""

from __future__ import annotations

import msgspec

from proxy.core.hearsay import Hearsay
from proxy.core.hints import Hint

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Hint)


class Mail:
    """Of one replica. `unread` counts what came from others and could not be understood.

    A replica of another release may say what this one does not know: that is lost, and nothing else.
    """

    def __init__(self, hearsay: Hearsay) -> None:
        self._hearsay = hearsay
        self.unread = 0

    def outgoing(self, replicas: int, now: float) -> bytes:
        """What goes with this trip, among so many replicas; empty: nothing."""
        hint = self._hearsay.say(replicas, now)
        return b"" if hint is None else _ENCODER.encode(hint)

    def came(self, hints: list[tuple[float, bytes]], sent_at: float, now: float) -> None:
        """What a trip that set out at `sent_at` brought: ages in seconds and hints, the latest first."""
        for age_s, packed in reversed(hints):
            try:
                hint = _DECODER.decode(packed)
            except msgspec.DecodeError:
                self.unread += 1
            else:
                self._hearsay.hear(hint, sent_at - age_s, now)
