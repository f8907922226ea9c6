"""MCP over streamable HTTP: a refused tool call is a tool result that the model can read.

Why a result: an HTTP error ends the whole session in the Python SDK before version two, and agent
frameworks replace a JSON-RPC error by "please try again" (reference/clients.md, finding 6 and "MCP clients").
"""

# ruff: noqa: ARG002 - the arguments are the base's, and MCP needs few of them

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from proxy.core.verdict import Reason, Refusal
from proxy.dialects.advice import final_sentence_of, members, sentence_of
from proxy.dialects.base import Answer, Ask, Malformed
from proxy.dialects.bodies import encode
from proxy.dialects.jsonrpc import TOOL_CALL, read_messages
from proxy.dialects.refusal import JSON, Facts, headers_of
from proxy.dialects.routing_headers import MISMATCH
from proxy.dialects.unsaid import InTheBody

COME_BACK_CODE: Final = -32010
FINAL_CODE: Final = -32011
"""JSON-RPC codes of ours. -32000, -32001 and -32042 are taken by SDKs, -32020…-32022 by the protocol."""

_HEADER_MISMATCH: Final = -32020
_INVALID_REQUEST: Final = -32600
_INTERNAL_ERROR: Final = -32603

_SESSION_METHODS: Final = frozenset({b"GET", b"DELETE"})

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_./-]{1,64}")
"""A tool's name as the protocol advises it; any other is not repeated in a sentence that a model reads."""


class Mcp(InTheBody):
    """Answers keep the request's id. The facts stand in `_meta` of a result, or in `data` of an error."""

    name = "mcp"
    is_model_api = False
    tools_in = "body"

    def needs_body(self, method: bytes, path: bytes) -> bool:
        """For every POST: the body names the tool, and the answer needs the id."""
        return method == b"POST"

    def is_session(self, method: bytes) -> bool:
        """Its event stream (GET), which would hold a permit for as long as an agent is there, and its end."""
        return method in _SESSION_METHODS

    def read(self, body: bytes) -> Ask:
        """Method, tool, ids and whether it is exempt."""
        return read_messages(body)

    def refuse(
        self, refusal: Refusal, ask: Ask | None, *, refuse_as: str = "result", stop_status: int = 400
    ) -> Answer:
        """A tool call: 200 and a result with `isError`. Another request: 200 and a JSON-RPC error.

        `refuse_as` "error" gives tool calls a JSON-RPC error too, "http" gives all an HTTP status with one,
        as does an unread body. Messages that await no answer get 202, the one that ends no session; and
        `initialize` while draining gets its 503, so that the session is opened elsewhere.
        """
        facts = Facts(refusal)
        if ask is not None and not ask.ids:
            return Answer(202, headers_of(facts)[1:], b"")  # no body, so no content-type
        leaving = facts.reason is Reason.DRAINING and ask is not None and ask.method == "initialize"
        if ask is None or leaving or refuse_as == "http":
            status = facts.status_or(stop_status)
            return Answer(status, headers_of(facts, by_status=True), _reply(facts, ask, as_result=False))
        return Answer(200, headers_of(facts), _reply(facts, ask, as_result=refuse_as == "result"))

    def error(self, status: int, code: str, message: str) -> Answer:
        """A JSON-RPC error without an id, by HTTP status: no request was understood that it could answer."""
        number = _INTERNAL_ERROR if status >= 500 else _INVALID_REQUEST
        if code == MISMATCH:
            number = _HEADER_MISMATCH
        reply = {
            "jsonrpc": "2.0",
            "id": None,
            "error": {"code": number, "message": message, "data": {"code": code}},
        }
        return Answer(status, [(b"content-type", JSON)], encode(reply))

    def cut(self, refusal: Refusal, ask: Ask | None = None) -> bytes | None:
        """The answer that a cut stream still owes, as its last event; None where nobody awaits one.

        It begins with an empty line, which ends an event that the upstream left unfinished.
        """
        if ask is None or not ask.ids:
            return None
        reply = _reply(Facts(refusal), ask, as_result=True)
        return b"\n\nevent: message\ndata: " + reply + b"\n\n"

    def costs_tokens(self, path: bytes) -> bool:
        """Never: nobody tells what a tool's model reads."""
        return False

    def with_model(self, path: bytes, body: bytes | None, model: str) -> tuple[bytes, bytes | None]:
        """Always Malformed."""
        raise Malformed("An MCP request names no model to replace.")


def reply_to(part: Ask, refusal: Refusal, *, refuse_as: str = "result") -> bytes:
    """The message that refuses one request of a batch: there is no HTTP status of its own to do it by."""
    return _reply(Facts(refusal), part, as_result=refuse_as == "result")


def refuse_all(
    refused: Sequence[tuple[Ask, Refusal]], ask: Ask, *, refuse_as: str = "result", stop_status: int = 400
) -> Answer:
    """The answer to a batch of which nothing was admitted: with the headers, or the status, of the first."""
    first = Facts(refused[0][1])
    if refuse_as == "http":
        status = first.status_or(stop_status)
        return Answer(status, headers_of(first, by_status=True), _reply(first, ask, as_result=False))
    replies = [reply_to(part, refusal, refuse_as=refuse_as) for part, refusal in refused]
    return Answer(200, headers_of(first), b"[" + b",".join(replies) + b"]")


def _reply(facts: Facts, ask: Ask | None, *, as_result: bool) -> bytes:
    """The message, or for a batch the array of messages, that answers every id."""
    text = _text(facts, ask)
    known = {**_members(facts), "retry": facts.invites}
    member: dict[str, object]
    if as_result and ask is not None and ask.method == TOOL_CALL:
        member = {
            "result": {
                "resultType": "complete",
                "isError": True,
                "content": [{"type": "text", "text": text}],
                "_meta": {f"backpressure/{name}": value for name, value in known.items()},
            }
        }
    else:
        code = COME_BACK_CODE if known["retry"] else FINAL_CODE
        member = {"error": {"code": code, "message": text, "data": known}}
    ids: tuple[int | str | None, ...] = (None,) if ask is None else ask.ids
    replies = [{"jsonrpc": "2.0", "id": request_id, **member} for request_id in ids]
    return encode(replies if ask is not None and ask.batch else replies[0])


def _members(facts: Facts) -> dict[str, object]:
    """All facts, also where the answer is final: JSON-RPC is not scanned for digits, it is full of them."""
    known: dict[str, object] = {"reason": facts.reason, "scope": facts.scope}
    if facts.limit:
        known["limit"] = facts.limit
    if facts.wait_ms:
        known["retry_after_ms"] = facts.wait_ms
    if facts.advice is not None:
        known["advice"] = members(facts.advice)
    return known


def _text(facts: Facts, ask: Ask | None) -> str:
    words = facts.words
    if facts.is_final or not facts.wait_ms:
        more = final_sentence_of(facts.advice) if facts.advice is not None else ""
        return f"{words.fact} {words.tool_advice}{more}"
    wait = f"{facts.wait_s} second{'' if facts.wait_s == 1 else 's'}"
    more = "" if facts.advice is None else sentence_of(facts.advice)
    if ask is None or ask.method != TOOL_CALL:
        return f"{words.fact} Do not send this request again for {wait}. {words.tool_advice}{more}"
    tool = f"tool {ask.tool}" if _PLAIN_NAME.fullmatch(ask.tool) else "this tool"
    return f"{words.fact} Do not call {tool} again for {wait}. {words.tool_advice}{more}"
