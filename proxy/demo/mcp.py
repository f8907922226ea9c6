"""An MCP server over streamable HTTP with two tools, for both protocol eras.

2026-07-28: every POST stands alone, opened by `server/discover`; the headers repeat version, method and tool.
2025-11-25 and older: `initialize` hands out an `Mcp-Session-Id`, DELETE ends it; a request without a session
is served, one with an unknown session gets the 404 that tells a client to start anew. A batch of messages,
which only 2025-03-26 knows, is answered message by message; it is the work of the tool that it names first.
There is no stream from server to client: GET is answered with 405, which the protocol allows.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import msgspec

from proxy.demo.answers import EVENT_STREAM, Answer, Request, Stream, encode, failed
from proxy.demo.behaviour import Behaviour

MODERN: Final = "2026-07-28"
HANDSHAKE: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
LONGEST_SESSION_LIST: Final = 10_000

_PARSE_ERROR, _INVALID_REQUEST, _NO_METHOD, _INVALID_PARAMS, _INTERNAL = (
    -32700,
    -32600,
    -32601,
    -32602,
    -32603,
)
_HEADER_MISMATCH, _UNSUPPORTED_VERSION = -32020, -32022
_MODERN_STATUS: Final = {_NO_METHOD: 404, _INTERNAL: 200}
_META: Final = "io.modelcontextprotocol/"
_SERVER: Final = {"name": "demo", "version": "1"}
_CAPABILITIES: Final = {"tools": {"listChanged": False}}


class _Tool(msgspec.Struct):
    describes: str
    takes: tuple[str, ...]
    answers: str

    def as_listed(self, name: str) -> dict[str, Any]:
        properties = {each: {"type": "string"} for each in self.takes}
        schema = {"type": "object", "properties": properties, "required": list(self.takes)}
        return {"name": name, "description": self.describes, "inputSchema": schema}


TOOLS: Final = {
    "search": _Tool("Search the notes.", ("query",), "1 note found for “{query}”."),
    "create_note": _Tool("Write a note.", ("title", "text"), "Note “{title}” created."),
}
_LISTED: Final = [tool.as_listed(name) for name, tool in TOOLS.items()]


class _RpcError(Exception):
    """Answered as a JSON-RPC error."""

    def __init__(self, code: int, message: str, more: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.more = more


class _Message(msgspec.Struct):
    """A JSON-RPC request; without an id a notification, without a method a client's response."""

    jsonrpc: str
    id: str | int | msgspec.UnsetType = msgspec.UNSET
    method: str = ""
    params: dict[str, Any] = {}


_read = msgspec.json.Decoder(_Message | list[_Message]).decode


def error_body(status: int, message: str, *, rpc_id: str | int | None = None) -> bytes:
    """An error of the HTTP layer, as JSON-RPC."""
    code = _INVALID_REQUEST if status < 429 else _INTERNAL
    return encode({"jsonrpc": "2.0", "id": rpc_id, "error": {"code": code, "message": message}})


class McpServer:
    """The MCP endpoint. Its only state is the list of sessions, of which the oldest fall off."""

    def __init__(self) -> None:
        self.sessions: dict[str, None] = {}

    def answer(self, request: Request, behaviour: Behaviour) -> Answer:
        """Whatever comes to `/mcp`. Only a `tools/call` is work."""
        if request.method == "DELETE":
            return self._end_session(request)
        if request.method != "POST":
            return failed(error_body, 405, "This server opens no stream.", allow="POST, DELETE")
        try:
            content = _read(request.body)
            if content == []:
                raise msgspec.ValidationError("it is empty")
        except msgspec.DecodeError as exc:
            code = _INVALID_REQUEST if isinstance(exc, msgspec.ValidationError) else _PARSE_ERROR
            return _error(None, _RpcError(code, f"No JSON-RPC message: {exc}"), 400)
        session = request.headers.get(b"mcp-session-id", b"").decode("latin-1")
        if session and session not in self.sessions and not _is_modern(request):
            return failed(error_body, 404, "No such session; initialize again.")
        messages = content if isinstance(content, list) else [content]
        answers = [
            self._reply(request, message, message.id)
            for message in messages
            if message.method and not isinstance(message.id, msgspec.UnsetType)
        ]
        if not answers:
            return Answer(error_body, status=202)
        return _batch(answers, behaviour) if isinstance(content, list) else _framed(answers[0], behaviour)

    def _reply(self, request: Request, message: _Message, rpc_id: str | int) -> Answer:
        try:
            if _is_modern(request):
                _check_envelope(request, message)
            else:
                _check_version(request)
            result = _result(message)
        except _RpcError as exc:
            status = _MODERN_STATUS.get(exc.code, 400) if _is_modern(request) else 200
            return _error(rpc_id, exc, status)
        body = encode({"jsonrpc": "2.0", "id": rpc_id, "result": result})
        render = partial(error_body, rpc_id=rpc_id)
        if message.method == "initialize":
            return Answer(render, body, headers=((b"mcp-session-id", self._open_session(request).encode()),))
        if message.method != "tools/call":
            return Answer(render, body)
        return Answer(render, body, is_work=True, tool=message.params["name"])

    def _open_session(self, request: Request) -> str:
        session = f"demo-session-{request.number}"
        self.sessions[session] = None
        if len(self.sessions) > LONGEST_SESSION_LIST:
            del self.sessions[next(iter(self.sessions))]
        return session

    def _end_session(self, request: Request) -> Answer:
        session = request.headers.get(b"mcp-session-id", b"").decode("latin-1")
        if session not in self.sessions:
            return failed(error_body, 404, "No such session.")
        del self.sessions[session]
        return Answer(error_body, status=204)


def _framed(answer: Answer, behaviour: Behaviour) -> Answer:
    """As an event stream, if it is a tool's and these are to be."""
    return _streamed([answer], answer) if answer.is_work and behaviour.mcp_sse else answer


def _batch(answers: list[Answer], behaviour: Behaviour) -> Answer:
    """All of them as one: an array, or a stream with an event for each."""
    first = next((answer for answer in answers if answer.is_work), answers[0])
    if first.is_work and behaviour.mcp_sse:
        return _streamed(answers, first)
    body = b"[" + b",".join(answer.body for answer in answers) + b"]"
    return Answer(first.error_body, body, is_work=first.is_work, tool=first.tool)


def _streamed(answers: list[Answer], first: Answer) -> Answer:
    events = [b"event: message\ndata: " + answer.body + b"\n\n" for answer in answers]
    stream = Stream(b"", iter(events), len(events), b"")
    return Answer(first.error_body, content_type=EVENT_STREAM, stream=stream, is_work=True, tool=first.tool)


def _is_modern(request: Request) -> bool:
    # Told by the routing header, so that a version of the future is answered in the modern way too.
    return b"mcp-method" in request.headers or request.headers.get(b"mcp-protocol-version") == MODERN.encode()


def _check_version(request: Request) -> None:
    version = request.headers.get(b"mcp-protocol-version", b"").decode("latin-1")
    if version and version not in HANDSHAKE:
        raise _unsupported(version)


def _unsupported(version: str) -> _RpcError:
    return _RpcError(
        _UNSUPPORTED_VERSION,
        "Unsupported protocol version",
        {"supported": [MODERN, *reversed(HANDSHAKE)], "requested": version},
    )


def _check_envelope(request: Request, message: _Message) -> None:
    meta = message.params.get("_meta")
    if (
        not isinstance(meta, dict)
        or not {_META + "protocolVersion", _META + "clientCapabilities"} <= meta.keys()
    ):
        raise _RpcError(
            _INVALID_PARAMS, "params._meta must carry the protocol version and the client's capabilities"
        )
    expected = {"mcp-protocol-version": meta[_META + "protocolVersion"], "mcp-method": message.method}
    if message.method == "tools/call":
        expected["mcp-name"] = message.params.get("name")
    for name, value in expected.items():
        if request.headers.get(name.encode(), b"").decode("latin-1") != value:
            raise _RpcError(_HEADER_MISMATCH, f"The header {name} does not match the body")
    if meta[_META + "protocolVersion"] != MODERN:
        raise _unsupported(str(meta[_META + "protocolVersion"]))


def _result(message: _Message) -> dict[str, Any]:
    cacheable = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    match message.method:
        case "server/discover":
            meta = {_META + "serverInfo": _SERVER}
            return {"supportedVersions": [MODERN], "capabilities": _CAPABILITIES, "_meta": meta} | cacheable
        case "initialize":
            asked = message.params.get("protocolVersion")
            version = asked if asked in HANDSHAKE else HANDSHAKE[-1]
            return {"protocolVersion": version, "capabilities": _CAPABILITIES, "serverInfo": _SERVER}
        case "ping":
            return {}
        case "tools/list":
            return {"tools": _LISTED} | cacheable
        case "tools/call":
            return _call(message.params)
        case method:
            raise _RpcError(_NO_METHOD, f"Method not found: {method}")


def _call(params: dict[str, Any]) -> dict[str, Any]:
    name, arguments = params.get("name"), params.get("arguments") or {}
    tool = TOOLS.get(name) if isinstance(name, str) else None
    if tool is None:
        raise _RpcError(_INVALID_PARAMS, f"Unknown tool: {name}")
    if not isinstance(arguments, dict):
        raise _RpcError(_INVALID_PARAMS, "arguments must be an object")
    missing = [each for each in tool.takes if not isinstance(arguments.get(each), str)]
    text = (
        f"{name} needs the text argument {', '.join(missing)}."
        if missing
        else tool.answers.format(**arguments)
    )
    return {"resultType": "complete", "content": [{"type": "text", "text": text}], "isError": bool(missing)}


def _error(rpc_id: str | int | None, error: _RpcError, status: int) -> Answer:
    body: dict[str, Any] = {"code": error.code, "message": str(error)}
    if error.more is not None:
        body["data"] = error.more
    return Answer(error_body, encode({"jsonrpc": "2.0", "id": rpc_id, "error": body}), status=status)
