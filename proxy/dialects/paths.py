"""A path as an upstream may read it, however it is spelt: decoded, without `.`, `..` and empty segments."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes


def segments(path: bytes) -> list[bytes]:
    """The segments of a path."""
    found: list[bytes] = []
    for segment in unquote_to_bytes(path).split(b"/"):
        if segment == b"..":
            del found[-1:]
        elif segment not in (b"", b"."):
            found.append(segment)
    return found


def last_segment(path: bytes) -> bytes:
    """The last of them; b"" where there is none."""
    if b"%" not in path and b"." not in path and not path.endswith(b"/"):
        return path.rpartition(b"/")[2]
    found = segments(path)
    return found[-1] if found else b""
