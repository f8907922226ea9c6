"""The fingerprint of a request: equal across the retries of every client measured.

Clients repeat a call with another order of keys (Codex) or without streaming (Claude Code), so raw bytes
do not recognise a retry; canonical JSON does (reference/clients.md, "Recognising retries and runs").
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

import msgspec

from proxy.dialects.bodies import JSON_ERRORS

MOST_KNOWN: Final = 4096
"""Digests remembered at once: as many bodies as a herd refused within a minute may consist of."""


class Digests:
    """Digests of the bodies seen lately, so that a herd of impatient repeats is recognised cheaply.

    A body is known by Python's own hash of it (SipHash with a key of this process, 64 bits): no body is kept.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}

    def of(self, body: bytes) -> bytes:
        """As `digest`, at a tenth of the price for a body that was asked about before."""
        mark = hash(body)
        known = self._known.get(mark)
        if known is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            known = self._known[mark] = digest(body)
        return known


def digest(body: bytes) -> bytes:
    """sha256 of the canonical JSON: keys sorted, without `stream` and `stream_options` at the top.

    JSON-RPC messages (MCP), alone or in a batch, count without `id` and `params._meta`, which differ in
    every repeat. A body that is not JSON, or too deep to be read, counts by its bytes.
    """
    try:
        content: Any = msgspec.json.decode(body)
        if isinstance(content, list):
            for message in content:
                _strip_message(message)
        elif isinstance(content, dict):
            content.pop("stream", None)
            content.pop("stream_options", None)
            _strip_message(content)
        canonical = msgspec.json.encode(content, order="sorted")
    except JSON_ERRORS:
        canonical = body
    return sha256(canonical).digest()


def _strip_message(message: Any) -> None:
    if not isinstance(message, dict) or "jsonrpc" not in message:
        return
    message.pop("id", None)
    params = message.get("params")
    if isinstance(params, dict):
        params.pop("_meta", None)
