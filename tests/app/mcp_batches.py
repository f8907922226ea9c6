"""What the tests of MCP batches and of tools that are set apart share."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

from proxy.demo import Behaviour, serve_demo
from tests.kit.raw import head
from tests.kit.running import running

MCP = {"content_type": "application/json", "accept": "application/json, text/event-stream"}


def call(request_id, tool="search", **meta):
    """One `tools/call` that any tool of the demo upstream understands."""
    arguments = {"query": "room", "title": "Today", "text": "All well"}
    params = {"name": tool, "arguments": arguments} | ({"_meta": meta} if meta else {})
    return {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}


def post(content, **headers):
    """The bytes of a POST of these messages."""
    body = json.dumps(content).encode()
    return head("POST", "/mcp", content_length=str(len(body)), **MCP, **headers) + body


def reason(reply):
    """Why a message was refused; None where it was not."""
    told = reply.get("result", {}).get("_meta", {}).get("backpressure/reason")
    return told or reply.get("error", {}).get("data", {}).get("reason")


def reasons(replies):
    """By id."""
    return {reply["id"]: reason(reply) for reply in replies}


def events(text):
    """The messages of an event stream."""
    return [
        json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")
    ]


def before(url, *, tools="{}", route="", upstream=""):
    """A configuration with one MCP route, which lets nobody wait unless it says so."""
    queue = "" if "queue" in route else "queue: {size: 0}, "
    return (
        f"upstreams: {{up: {{url: '{url}', dialect: mcp, {upstream}}}}}\n"
        f"routes: [{{name: mcp, path: /mcp, upstream: up, {queue}{route} tools: {tools}}}]\n"
    )


@asynccontextmanager
async def before_tools(tools="{}", behaviour=None, **more):
    """The demo upstream behind one MCP route with these settings for its tools."""
    async with (
        serve_demo(behaviour or Behaviour(latency_s=0.0)) as demo,
        running(before(f"{demo.url}/mcp", tools=tools, **more)) as proxy,
    ):
        proxy.upstream = demo.upstream
        proxy.extra["url"] = demo.url
        yield proxy
