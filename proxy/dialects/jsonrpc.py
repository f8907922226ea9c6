"""The JSON-RPC messages of an MCP POST, read in part: who awaits an answer, and which tool is called."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from proxy.dialects.base import Ask, Malformed
from proxy.dialects.bodies import decode

TOOL_CALL: Final = "tools/call"

NOTIFICATION: Final = "notifications/"

_EXEMPT: Final = frozenset({"initialize", "server/discover", "tools/list", "ping"})
"""Refused, they end the session or change its protocol version (reference/clients.md, "MCP clients")."""

# The id goes back as it came: whole numbers beyond 64 bits would be the first thing a client's parser rounds.
_Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | str | None

_NOTHING: Final = msgspec.Raw(b"")


class _Message(msgspec.Struct):
    method: str | None = None
    id: _Id | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw = _NOTHING
    result: msgspec.Raw = _NOTHING
    error: msgspec.Raw = _NOTHING


class _ToolParams(msgspec.Struct):
    name: str


_MESSAGES: Final = msgspec.json.Decoder(_Message | list[_Message])
_RAWS: Final[msgspec.json.Decoder[list[msgspec.Raw]]] = msgspec.json.Decoder(list[msgspec.Raw])
_TOOL_PARAMS: Final = msgspec.json.Decoder(_ToolParams)

MOST_MESSAGES: Final = 100
"""Of one batch. Each may wait for room and hold a permit (bor and Erigon: `rpc.batch.limit` 100)."""


def read_messages(body: bytes) -> Ask:
    """What one message or a batch asks for. Raises Malformed.

    Answers of the caller to the server's own requests are exempt, as are notifications. A batch with anything
    that is not is decided message by message: its ask has `parts`, in their order, unless it has but one.
    """
    content = decode(_MESSAGES, body)
    if not isinstance(content, list):
        return _ask(content)
    if not content:
        raise Malformed("An empty batch asks for nothing.")
    if len(content) > MOST_MESSAGES:
        raise Malformed(f"A batch may hold {MOST_MESSAGES} messages at most: send the others apart.")
    parts = [_ask(message) for message in content]
    ids = tuple(request_id for part in parts for request_id in part.ids)
    if len(set(ids)) < len(ids):
        raise Malformed("Two requests of a batch have the same `id`: give each its own.")
    methods = {part.method for part in parts if part.ids}
    exempt = all(part.exempt for part in parts)
    if not exempt and len(parts) > 1:
        raws: list[msgspec.Raw] = decode(_RAWS, body)
        for part, raw in zip(parts, raws, strict=True):
            part.raw = bytes(raw)
        return Ask(method=_only(methods), ids=ids, batch=True, parts=tuple(parts))
    return Ask(
        method=_only(methods), tool="".join(part.tool for part in parts), ids=ids, exempt=exempt, batch=True
    )


def _ask(message: _Message) -> Ask:
    """One message; `ids` is empty where it awaits no answer."""
    method, request_id = message.method, message.id
    if method is None:
        is_reply = request_id is not msgspec.UNSET and bool(bytes(message.result) or bytes(message.error))
        if not is_reply:
            raise Malformed("The body is neither a JSON-RPC request nor an answer to one.")
        return Ask(exempt=True)
    if request_id is msgspec.UNSET:
        if not method.startswith(NOTIFICATION):
            raise Malformed("A request must have an `id`: a string or a whole number.")
        return Ask(exempt=True)
    if not isinstance(request_id, int | str):
        raise Malformed("The `id` of a request must be a string or a whole number.")
    tool = ""
    if method == TOOL_CALL:
        tool = decode(_TOOL_PARAMS, bytes(message.params) or b"{}").name
    return Ask(method=method, tool=tool, ids=(request_id,), exempt=method in _EXEMPT)


def _only(methods: set[str]) -> str:
    return next(iter(methods)) if len(methods) == 1 else ""
