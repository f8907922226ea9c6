"""Codex CLI, which takes an HTTP refusal in one of its releases for another thing than it says."""

from __future__ import annotations

import re
from typing import Final

from proxy.dialects.base import Headers

HEEDS_429: Final = (0, 169)
"""From this release on a 429 with Retry-After is heeded; before, it is fatal (clients.md, finding 5)."""

_VERSION: Final = re.compile(rb"[^/]*/([0-9]{1,4})\.([0-9]{1,4})(?![0-9])")


def needs_stream_form(headers: Headers, *, always: bool) -> bool:
    """Does it come from a Codex that is to be refused by an event of its stream? `always`: from any Codex.

    One that does not tell its release is: every release understands that form.
    """
    originator = agent = b""
    for name, value in headers:
        if name == b"originator":
            originator = value
        elif name == b"user-agent":
            agent = value
    if originator.strip()[:6].lower() != b"codex_":
        return False
    told = None if always else version(agent)
    return told is None or told < HEEDS_429


def version(user_agent: bytes) -> tuple[int, int] | None:
    """`codex_cli_rs/0.120.0 (…)` is (0, 120); None where none is told. Never raises."""
    found = _VERSION.match(user_agent[:256])
    return None if found is None else (int(found[1]), int(found[2]))
