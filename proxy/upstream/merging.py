"""An answer to which some messages of our own are added, as the upstream's passes: to a batch of JSON-RPC.

Into an array ours go as its first members, into an event stream as its first events. Nothing is gathered.
"""

from __future__ import annotations

from typing import Final

from proxy.upstream.contract import Downstream, Headers
from proxy.upstream.passing import Passing

_SPACE: Final = b" \t\r\n"

_ACCEPTED: Final = 202
"""The answer to messages that await none: where ours are due, they make it one of its own."""

_JSON: Final = b"application/json"
_EVENTS: Final = b"text/event-stream"
_OF_THE_BODY: Final = frozenset({b"content-length", b"content-type"})

_PASSES, _BEGINS, _IN_OBJECT, _LEFT_OUT = range(4)


class Merged(Passing):
    """The caller's side of an exchange for a part of a batch; `replies` answer the rest of it, one or more.

    An answer with another status than 200 or 202 is for the whole batch, and passes as it is. `unread`: one
    came that ours cannot be added to, in a form that was not asked for. Nothing of it was passed on: the
    caller has got nothing.
    """

    __slots__ = ("_events", "_head", "_state", "members", "unread")

    def __init__(self, caller: Downstream, replies: list[bytes]) -> None:
        super().__init__(caller)
        self.members = b",".join(replies)
        self._events = b"".join(b"event: message\ndata: " + reply + b"\n\n" for reply in replies)
        self._state = _PASSES
        self._head = b""  # of an array, up to what shows whether it has a member
        self.unread = False

    def start(self, status: int, headers: Headers) -> None:
        """The head of the answer, and ours where it is known to fit."""
        if status == _ACCEPTED:
            rest = [field for field in headers if field[0] not in _OF_THE_BODY]
            self._caller.start(200, [*rest, (b"content-type", _JSON)])
            self._caller.write(b"[" + self.members + b"]")
            self._state = _LEFT_OUT
            return
        if status != 200:
            self._caller.start(status, headers)
            return
        kind = _kind_of(headers)
        if kind == _EVENTS:
            self._caller.start(status, _of_any_length(headers))
            self._caller.write(self._events)
        elif kind == _JSON:
            self._caller.start(status, _of_any_length(headers))
            self._state = _BEGINS
        else:
            self._state = _LEFT_OUT
            self.unread = True

    def write(self, piece: bytes) -> None:
        """A piece of the answer. Raises CallerGone."""
        if self._state == _BEGINS:
            piece = self._begun(piece)
        if piece and self._state != _LEFT_OUT:
            self._caller.write(piece)

    def _begun(self, piece: bytes) -> bytes:
        """What can be passed on: nothing, until it is clear whether a member follows ours."""
        head = (self._head + piece).lstrip(_SPACE)
        if head[:1] == b"[":
            rest = head[1:].lstrip(_SPACE)
            if not rest:
                self._head = b"["
                return b""
            self._state = _PASSES
            return b"[" + self.members + (b"" if rest[:1] == b"]" else b",") + rest
        if not head:
            return b""
        self._state = _IN_OBJECT  # one answer to all that was asked
        return b"[" + self.members + b"," + head

    def end(self) -> None:
        """It is complete."""
        if self._state == _BEGINS:
            self._caller.write(b"[" + self.members + b"]")
        elif self._state == _IN_OBJECT:
            self._caller.write(b"]")
        if not self.unread:
            self._caller.end()

    def flush(self) -> None:
        """As the caller's."""
        if not self.unread:
            self._caller.flush()


def _kind_of(headers: Headers) -> bytes:
    """`application/json` or `text/event-stream`; b"" for any other, and for what is encoded."""
    kind = b""
    for name, value in headers:
        if name == b"content-type":
            media = value.partition(b";")[0].strip().lower()
            kind = media if media in (_JSON, _EVENTS) else b""
        elif name == b"content-encoding" and value.strip().lower() != b"identity":
            return b""
    return kind


def _of_any_length(headers: Headers) -> Headers:
    return [field for field in headers if field[0] != b"content-length"]
