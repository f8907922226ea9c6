"""REST tools: `/tools/{tool}/…` answers what it was asked."""

from __future__ import annotations

from proxy.demo.answers import Answer, Request, encode, failed
from proxy.demo.behaviour import Behaviour


def error_body(status: int, message: str) -> bytes:
    """An error as many REST APIs write it."""
    return encode({"error": {"status": status, "message": message}})


def call(request: Request, behaviour: Behaviour) -> Answer:
    """Any method on `/tools/{tool}` and below: method, path and query as received, and the tool's name."""
    tool = request.path.removeprefix("/tools/").partition("/")[0]
    if not tool:
        return failed(error_body, 404, "Name a tool: /tools/{tool}/…")
    fields = {
        "tool": tool,
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "body_bytes": len(request.body),
    }
    body = encode(fields)
    missing = behaviour.tool_bytes - len(body)
    if missing > 0:
        body = encode(fields | {"padding": "x" * missing})
    return Answer(error_body, body, is_work=True, tool=tool)


def unknown(request: Request, _behaviour: Behaviour) -> Answer:
    """Any other path."""
    return failed(
        error_body,
        404,
        f"Nothing is served at {request.path}; there are /v1/chat/completions, /v1/models, /v1/messages, "
        "/tools/{tool}/…, /mcp and /_demo/{ledger,mode,capacity,reset}.",
    )
