"""Which agent task a call belongs to, and which agent of that task makes it: as agents say it by themselves.

No value leaves this file: a run and an agent are short hashes, and a run is its caller's own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

IN_BODY: Final = "body."
"""Begins the spelling of a source that is no header."""

AGENT: Final = b"x-claude-code-agent-id"
PARENT: Final = b"x-claude-code-parent-agent-id"
"""Claude Code's sub-agents share the session, which is the run, and say who they are and who made them."""

TRACEPARENT: Final = b"traceparent"

HASH_CHARS: Final = 12
"""48 bits: two of 100,000 callers, or runs of one caller, share a hash with a probability of 2e-5."""

MOST_MET: Final = 10_000
"""Values remembered at once, so that what a task sends with each of its calls is hashed once."""

MOST_BYTES: Final = 1024
"""Of a value, as far as two are told apart; the longest that a client sends has about 200."""

_TRACE: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class RunNames:
    """Reads run, agent and parent as configured (`runs.identify`): the first source that says something."""

    __slots__ = ("_headers", "_met", "_sources")

    def __init__(self, sources: Sequence[str]) -> None:
        self._sources = tuple(sources)
        self._headers = tuple(name.encode() for name in sources if not name.startswith(IN_BODY))
        self._met: dict[int, str] = {}

    def before(self, in_body: str) -> int:
        """How many headers are asked before this source in the body; -1: it is not asked."""
        if in_body not in self._sources:
            return -1
        above = self._sources[: self._sources.index(in_body)]
        return sum(not name.startswith(IN_BODY) for name in above)

    def said(self, headers: dict[bytes, bytes], most: int) -> bytes:
        """What the first of the `most` first headers says that says anything, or b""."""
        for name in self._headers[:most]:
            value = headers.get(name)
            if value is not None:
                value = trace_id(value) if name == TRACEPARENT else value.strip()
                if value:
                    return value
        return b""

    def of(
        self, headers: dict[bytes, bytes], caller: str, in_body: bytes = b"", before: int = 0
    ) -> tuple[str, str, str]:
        """Run, agent and the agent's parent; "" for what is not said.

        `in_body` is what the body says, and `before` how many headers are asked before that. Two callers
        never share a run. An agent is its run's own, and so is its parent.
        """
        if in_body:
            value = self.said(headers, before) or in_body
        elif any(name in headers for name in self._headers):  # mypyc makes a plain loop of it
            value = self.said(headers, len(self._headers))
        else:
            return _NOBODY  # most calls
        if not value:
            return _NOBODY
        agent = headers.get(AGENT)
        run = f"{caller}/{self._mark(value)}"
        if not agent:
            return run, "", ""
        parent = headers.get(PARENT)
        return run, self._mark(agent), self._mark(parent) if parent else ""

    def _mark(self, value: bytes) -> str:
        """The hash of a value; remembered under Python's own keyed one (SipHash, 64 bits)."""
        key = hash(value)
        mark = self._met.get(key)
        if mark is None:
            if len(self._met) >= MOST_MET:
                self._met.clear()
            mark = self._met[key] = hashlib.sha256(value[:MOST_BYTES]).hexdigest()[:HASH_CHARS]
        return mark


_NOBODY: Final = ("", "", "")


def trace_id(value: bytes) -> bytes:
    """The trace of a `traceparent` (W3C Trace Context); b"" where it is none. Never raises."""
    found = _TRACE.match(value.strip())
    if found is None or value.strip()[:2] == b"ff":
        return b""
    trace: bytes = found[1]
    return trace if trace.strip(b"0") else b""
