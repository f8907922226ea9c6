"""The headers by which the MCP protocol, from 2026-07-28 on, names method and tool beside the body.

They are never what a call is charged by: that is its body, which is read in any case, for the answer to a
refusal needs the request's id. But an upstream may go by them, and a caller who names one tool here and
another there would have the one under the cap of the other. So who contradicts itself is refused, as the
protocol has servers do (`HeaderMismatch`).
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from typing import ClassVar, Final

from proxy.dialects.base import Ask, Headers, Malformed
from proxy.dialects.jsonrpc import TOOL_CALL

METHOD: Final = b"mcp-method"
NAME: Final = b"mcp-name"

MISMATCH: Final = "header_mismatch"

_TOOL_CALL: Final = TOOL_CALL.encode()

_ENCODED: Final = (b"=?base64?", b"?=")
"""Around the base64 of a name that no header could carry as it is."""


class HeaderMismatch(Malformed):
    """The headers name another method or tool than the body."""

    code: ClassVar[str] = MISMATCH


def check_routing(headers: Headers, ask: Ask) -> None:
    """Raises HeaderMismatch. What no header says none contradicts; of one sent twice each must be right."""
    awaits_answer = bool(ask.ids)
    for name, value in headers:
        if name == METHOD and value != ask.method.encode() and (awaits_answer or value == _TOOL_CALL):
            raise HeaderMismatch("The header mcp-method names another method than the body.")
        if name == NAME and awaits_answer and not _is_named(value, ask):
            raise HeaderMismatch("The header mcp-name names another tool than the body.")


def _is_named(value: bytes, ask: Ask) -> bool:
    if ask.batch:
        return False  # each of its messages has a name of its own
    return ask.method != TOOL_CALL or _decoded(value) == ask.tool.encode()


def _decoded(value: bytes) -> bytes | None:
    start, end = _ENCODED
    if not (value.startswith(start) and value.endswith(end) and len(value) >= len(start) + len(end)):
        return value
    try:
        return b64decode(value[len(start) : -len(end)], validate=True)
    except NotBase64:
        return None
