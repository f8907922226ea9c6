"""What an answer tells of its tokens, read as it passes.

Events that cannot tell are not decoded; those that carry text are counted, for the day the stream is cut.
"""

from __future__ import annotations

from typing import Final

from proxy.dialects.base import Headers
from proxy.dialects.bodies import JSON_ERRORS
from proxy.dialects.removing import Remover
from proxy.dialects.shapes import TOLD, TOLD_IN_PARTS, Told
from proxy.dialects.usage import Spent, spent

MOST_BYTES: Final = 256 * 1024
"""Of an answer, or an event, longer than this only the end is kept: there usage stands, in every API."""

END_BYTES: Final = 16 * 1024
"""So much of it. Behind the usage of Responses comes `metadata`, of 8 KiB at most."""

_IDENTITY: Final = (b"accept-encoding", b"identity")

USAGE: Final = b'"usage"'
GEMINI: Final = b'"usageMetadata"'
"""In JSON these bytes are a whole string and no part of one. Where they are a key of the outermost object,
and nowhere else, what follows is an object but for its brace: then what stands before need not be read."""

EITHER: Final = b'"usage'
"""How both begin: one look for two."""

NONE_YET: Final = b'"usage":null'
"""Most events of a stream that will tell its usage at the end say so."""

DELTA: Final = b'"delta"'
"""The key of every piece of text, thought or tool call in a stream of OpenAI's or Anthropic's."""

NO_TEXT: Final = b'"content":""'
"""OpenAI's first piece says who speaks, and nothing else."""

LONG_BEFORE: Final = 64

MOST_PARTS: Final = 32
"""Gemini's usage counts by modality, of which there are five, in four lists."""

UNREAD: Final = 0
PLAIN: Final = 1
STREAM: Final = 2


def readable(headers: Headers) -> Headers:
    """The same headers of a request, asking for an answer that a `Meter` can read: in no encoding.

    nginx needs the same for its `sub_filter`. Who names no encoding is sent none by any known server.
    """
    for name, _ in headers:
        if name == _IDENTITY[0]:
            return [field for field in headers if field[0] != name] + [_IDENTITY]
    return headers


class Meter:
    """Reads from one answer, as it passes, what the call has used. Holds `MOST_BYTES` of it at most.

    `begin` with its head, `take` each piece of its body, `close` when no more comes, and look: `input`,
    `output`, `cached`, `written` and `apart` as of `usage.Spent`, each the last that was told. `pieces` is
    how many events carried text, `bytes` how long its body was, `status` 0 where no head came. All is the
    same for any cutting of the same body.
    """

    __slots__ = (
        "_begun", "_form", "_held", "_held_bytes", "_long", "_remover", "apart", "bytes", "cached", "input",
        "output", "pieces", "status", "written",
    )  # fmt: skip

    def __init__(self, remover: Remover | None = None) -> None:
        self._form = UNREAD
        self._held: list[bytes] = []  # a plain answer so far, or an event's line that is not whole
        self._held_bytes = 0
        self._long = False  # only the end of what is held was kept
        self._begun = False
        self._remover = remover
        self.status = 0
        self.bytes = 0
        self.pieces = 0
        self.input: int | None = None
        self.output: int | None = None
        self.cached: int | None = None
        self.written: int | None = None
        self.apart = False

    def begin(self, status: int, headers: Headers) -> None:
        """The answer's head."""
        self.status = status
        has_length = False
        for name, value in headers:
            if name == b"content-type":
                kind = value.lower()
                if kind.startswith(b"text/event-stream"):
                    self._form = STREAM
                elif kind.startswith(b"application/json"):
                    self._form = PLAIN
            elif name == b"content-length":
                has_length = True
            elif name == b"content-encoding" and value.lower() != b"identity":
                self._form = UNREAD  # it was asked to send none
                self._remover = None
                return
        if self._form != STREAM or has_length:
            self._remover = None  # no stream, or one whose length has been told

    def take(self, piece: bytes) -> bytes:
        """A piece of the answer's body; what of it to pass on now, which may be nothing."""
        self.bytes += len(piece)
        if self._form == STREAM:
            self._take_events(piece)
            if self._remover is not None:
                return self._remover.take(piece)
        elif self._form == PLAIN:
            self._hold(piece)
        return piece

    def rest(self) -> bytes:
        """The answer ends, or is cut: what is still to be passed on."""
        if self._remover is None:
            return b""
        remover, self._remover = self._remover, None
        self._form = UNREAD
        return remover.rest()

    def close(self) -> None:
        """No more comes, whether the answer is complete or not."""
        if self._form == PLAIN:
            self._form = UNREAD
            body = b"".join(self._held)
            self._held.clear()
            self._read(_end(body) if self._long else body, whole=not self._long)

    # ── streams ─────────────────────────────────────────────────────────────────────────────────────

    def _take_events(self, piece: bytes) -> None:
        end = len(piece) if piece.endswith(b"\n") else piece.rfind(b"\n") + 1
        if not end:
            self._hold(piece)
            return
        lines = piece if end == len(piece) else piece[:end]
        if self._held:
            lines = self._with_held(lines)
        if end != len(piece):
            self._hold(piece[end:])
        if len(lines) > MOST_BYTES:
            self._read_each(lines)
        else:
            self._read_lines(lines)

    def _read_lines(self, lines: bytes) -> None:
        pieces = lines.count(DELTA)
        if pieces:
            self.pieces += pieces
            if not self._begun:
                self._begun = True
                if NO_TEXT in next(line for line in lines.split(b"\n") if DELTA in line):
                    self.pieces -= 1
        at = lines.find(EITHER)
        if at < 0 or (lines.startswith(NONE_YET, at) and lines.find(EITHER, at + len(NONE_YET)) < 0):
            return  # as most: a fifth of what an event costs
        for line in lines.split(b"\n"):
            if line.startswith(b"data:") and EITHER in line and not _is_null(line):
                self._read(line[5:], whole=True)
                self.pieces -= line.count(DELTA)  # Anthropic's last but one says why it ended

    def _with_held(self, lines: bytes) -> bytes:
        """The lines with the beginning of their first before them; without it, where that is too long."""
        held = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        if not self._long:
            return held + lines
        self._long = False
        line, _, lines = lines.partition(b"\n")
        self._read(_end(held + line), whole=False)
        return lines

    def _read_each(self, lines: bytes) -> None:
        """Lines of which one may be too long, in their order."""
        short: list[bytes] = []
        for line in lines.split(b"\n"):
            if len(line) <= MOST_BYTES:
                short.append(line)
                continue
            self._read_lines(b"\n".join(short))
            short.clear()
            self._read(_end(line), whole=False)
        self._read_lines(b"\n".join(short))

    def _hold(self, piece: bytes) -> None:
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes > MOST_BYTES or (self._long and len(self._held) > 1):
            self._long = True
            self._held = [_end(b"".join(self._held))]

    # ── what it tells ───────────────────────────────────────────────────────────────────────────────

    def _read(self, told: bytes, *, whole: bool) -> None:
        found = _spent_in(told) if whole else _spent_at_end(told)
        if found is None:
            return
        # The events of a stream tell it bit by bit; each number is a running total, the last one counts.
        self.input = self.input if found.input is None else found.input
        self.output = self.output if found.output is None else found.output
        self.cached = self.cached if found.cached is None else found.cached
        self.written = self.written if found.written is None else found.written
        self.apart = self.apart or found.apart


def _end(text: bytes) -> bytes:
    return text[-END_BYTES:]


def _spent_in(told: bytes) -> Spent | None:
    """What an answer, or an event, tells; or the last of a row of them that tells anything."""
    at = max(told.rfind(USAGE), told.rfind(GEMINI))
    if at < 0:
        return None
    answer = _told(b"{" + told[at:]) if at > LONG_BEFORE else None
    if answer is not None:
        return spent(answer)
    if told.lstrip()[:1] == b"[":
        return _spent_in_parts(told, at)
    answer = _told(told)
    return None if answer is None else spent(answer)


def _spent_in_parts(told: bytes, at: int) -> Spent | None:
    """A stream of Gemini that is an array, whole or cut: the last usage in it."""
    try:
        parts = TOLD_IN_PARTS.decode(told)
    except JSON_ERRORS:
        end = at
        for _ in range(MOST_PARTS):  # its object holds lists of objects
            end = told.find(b"}", end, at + END_BYTES) + 1
            answer = _told(b"{" + told[at:end] + b"}") if end else None
            if answer is not None or not end:
                return None if answer is None else spent(answer)
        return None
    for part in reversed(parts):
        found = spent(part)
        if found is not None:
            return found
    return None


def _spent_at_end(told: bytes) -> Spent | None:
    """The same of an end alone: of an answer, or of an event that wraps one."""
    at = max(told.rfind(USAGE), told.rfind(GEMINI))
    if at < 0:
        return None
    for before in (b"{", b'{"response":{'):
        answer = _told(before + told[at:])
        if answer is not None:
            return spent(answer)
    return _spent_in_parts(b"[{" + told[at:], 2)


def _told(answer: bytes) -> Told | None:
    try:
        return TOLD.decode(answer)
    except JSON_ERRORS:
        return None  # not ours to complain of: the caller reads it too


def _is_null(line: bytes) -> bool:
    return NONE_YET in line and line.count(EITHER) == 1
