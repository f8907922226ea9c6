"""Names in headers and texts: what an operator or a caller wrote, made safe to send."""

from __future__ import annotations

from string import ascii_letters, digits, punctuation
from typing import Final
from urllib.parse import quote

_LONGEST_NAME: Final = 256
"""Of a scope or limit, in a header: room for every configured name, and a bound for a hostile one."""

_VISIBLE: Final = ascii_letters + digits + punctuation + " "


def printable(name: str) -> str:
    """A name that can stand in a header: visible ASCII, the rest as percent-encoded UTF-8, and bounded."""
    if len(name) <= _LONGEST_NAME and name.isascii() and name.isprintable():
        return name
    return quote(name[:_LONGEST_NAME], safe=_VISIBLE, errors="replace")[:_LONGEST_NAME]
