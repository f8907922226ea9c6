"""Takes out of a stream of Chat Completions what is there only because we asked for it.

That is the event that tells the usage, of which no caller who did not ask knows anything (`choices` is empty,
and some clients take its first), and the member `"usage":null` of every other. All else keeps its bytes.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.dialects.bodies import JSON_ERRORS
from proxy.dialects.shapes import CHUNK

MOST_HELD: Final = 256 * 1024
"""A line longer than this is passed on as it comes: no event that tells usage alone is so long."""

_KEY: Final = b'"usage"'
_OFTEN: Final = b',"usage":null'
_NULL: Final = re.compile(rb',\s?"usage":\s?null')
"""In JSON the quotes of a key stand in no string, so that this is a member, and of an event the only one."""


class Remover:
    """Of one stream. What it is given comes out line by line: the end of a line is the end of a write."""

    __slots__ = ("_blank", "_held", "_held_bytes", "_passing")

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._passing = False  # the rest of a line that is too long
        self._blank = False  # the empty line behind an event that was taken out is to follow it

    def take(self, piece: bytes) -> bytes:
        """A piece of the stream; what of it and of what was held to pass on."""
        end = len(piece) if piece.endswith(b"\n") else piece.rfind(b"\n") + 1
        if not end:
            return self._hold(piece)
        lines, before = piece[:end], b""
        if self._passing:
            self._passing = False
            before, newline, lines = lines.partition(b"\n")
            before += newline
        elif self._held:
            lines = b"".join(self._held) + lines
            self._held.clear()
            self._held_bytes = 0
        lines = before + self._without(lines)
        return lines if end == len(piece) else lines + self._hold(piece[end:])

    def rest(self) -> bytes:
        """The stream has ended: what was held."""
        held = b"".join(self._held)
        self._held.clear()
        return held

    def _hold(self, piece: bytes) -> bytes:
        if self._passing:
            return piece
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes <= MOST_HELD:
            return b""
        self._passing = True
        self._blank = False
        self._held_bytes = 0
        return self.rest()

    def _without(self, lines: bytes) -> bytes:
        """Whole lines, without what is to be taken out."""
        if self._blank and lines:
            self._blank = False
            blank = 1 if lines.startswith(b"\n") else 2 if lines.startswith(b"\r\n") else 0
            lines = lines[blank:]
        if lines.find(_KEY) < 0:
            return lines
        if len(lines) <= MOST_HELD:
            bare = lines.replace(_OFTEN, b"")
            if bare.find(_KEY) < 0:
                return bare
        kept: list[bytes] = []
        for line in lines[:-1].split(b"\n"):
            if self._blank:
                self._blank = False
                if line in (b"", b"\r"):
                    continue
            if _KEY not in line or len(line) > MOST_HELD:
                kept.append(line)
            elif line.startswith(b"data:") and _tells_usage_alone(line[5:]):
                self._blank = True
            else:
                kept.append(_NULL.sub(b"", line))
        kept.append(b"")
        return b"\n".join(kept)


def _tells_usage_alone(event: bytes) -> bool:
    try:
        chunk = CHUNK.decode(event)
    except JSON_ERRORS:
        return False
    return chunk.usage is not None and chunk.choices == []
