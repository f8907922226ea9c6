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
_TOOL_PARAMS: Final = msgspec.json.Decoder(_ToolParams)


def read_messages(body: bytes) -> Ask:
    """What one message or a batch asks for. Raises Malformed, also for a batch that calls different tools.

    Such a batch would pass under the cap of one tool and spend the allowance of another. Answers of the
    caller to the server's own requests are exempt, as are notifications.
    """
    content = decode(_MESSAGES, body)
    messages = content if isinstance(content, list) else [content]
    if not messages:
        raise Malformed("An empty batch asks for nothing.")
    ids: list[int | str] = []
    methods: set[str] = set()
    tools: set[str] = set()
    for message in messages:
        if message.method is None:
            _check_reply(message)
            continue
        if message.id is msgspec.UNSET:
            if not message.method.startswith(NOTIFICATION):
                raise Malformed("A request must have an `id`: a string or a whole number.")
            continue
        if message.id is None:
            raise Malformed("The `id` of a request must be a string or a whole number.")
        ids.append(message.id)
        methods.add(message.method)
        if message.method == TOOL_CALL:
            tools.add(decode(_TOOL_PARAMS, bytes(message.params) or b"{}").name)
    if len(tools) > 1:
        raise Malformed("A batch may call one tool only: send calls of different tools apart.")
    return Ask(
        method="".join(methods) if len(methods) == 1 else "",
        tool="".join(tools),
        ids=tuple(ids),
        exempt=methods <= _EXEMPT,
        batch=isinstance(content, list),
    )


def _check_reply(message: _Message) -> None:
    is_reply = message.id is not msgspec.UNSET and bool(bytes(message.result) or bytes(message.error))
    if not is_reply:
        raise Malformed("The body is neither a JSON-RPC request nor an answer to one.")
