"""The real `mcp` client in a session whose tool calls are refused: it reads why, and the session lives."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from mcp import Client, MCPError

from proxy.core.verdict import Reason
from proxy.dialects import Answer, dialect_named
from tests.dialects.refusals import FINAL, example
from tests.dialects.serving import serving

MCP = dialect_named("mcp")
JSON = [(b"content-type", b"application/json")]


class Server:
    """Speaks enough MCP for a session; every other request is refused for the reason at hand."""

    def __init__(self, refuse_as: str = "result") -> None:
        self.reason = Reason.CAP_REACHED
        self.refuse_as = refuse_as

    def __call__(self, method: str, body: bytes) -> Answer:
        if not MCP.needs_body(method.encode(), b"/mcp"):
            return Answer(405, [], b"")
        ask = MCP.read(body)
        results: dict[str, dict[str, Any]] = {
            "initialize": {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "s", "version": "1"},
            },
            "tools/list": {"tools": [{"name": "search", "inputSchema": {"type": "object"}}]},
            "ping": {},
        }
        if ask.method in results:
            reply = {"jsonrpc": "2.0", "id": ask.ids[0], "result": results[ask.method]}
            return Answer(200, JSON, msgspec.json.encode(reply))
        return MCP.refuse(example(self.reason), ask, refuse_as=self.refuse_as)


async def test_every_refusal_is_a_tool_error_that_the_model_reads_and_the_session_goes_on() -> None:
    server = Server()
    async with serving(server) as url, Client(f"{url}/mcp", mode="legacy") as client:
        for reason in Reason:
            server.reason = reason
            result = await client.call_tool("search", {"q": "x"})
            assert result.is_error
            assert len(result.content[0].text) > 20
            assert result.meta["backpressure/reason"] == reason
            assert result.meta["backpressure/retry"] is (reason not in FINAL)
        assert [tool.name for tool in (await client.list_tools()).tools] == ["search"]


@pytest.mark.parametrize("refuse_as", ["error", "http"])
async def test_as_an_error_the_refusal_raises_with_the_facts_and_the_session_goes_on(refuse_as: str) -> None:
    server = Server(refuse_as)
    async with serving(server) as url, Client(f"{url}/mcp", mode="legacy") as client:
        for reason, code in ((Reason.SHED, -32010), (Reason.RUN_HALTED, -32011)):
            server.reason = reason
            with pytest.raises(MCPError) as raised:
                await client.call_tool("search", {"q": "x"})
            assert raised.value.error.code == code
            assert raised.value.error.data["reason"] == reason
        assert [tool.name for tool in (await client.list_tools()).tools] == ["search"]


async def test_another_request_is_refused_by_an_error() -> None:
    async with serving(Server()) as url, Client(f"{url}/mcp", mode="legacy") as client:
        with pytest.raises(MCPError, match="Do not send this request again for 13 seconds"):
            await client.read_resource("file:///x")


async def test_a_cut_stream_of_a_tool_call_still_gives_its_answer() -> None:
    def respond(method: str, body: bytes) -> Answer:
        answer = Server()(method, body)
        ask = MCP.read(body) if body else None
        if ask is None or ask.method != "tools/call":
            return answer
        cut = MCP.cut(example(Reason.UPSTREAM_FAILED), ask)
        assert cut is not None
        return Answer(
            200, [(b"content-type", b"text/event-stream")], b": a comment, and then a torn event" + cut
        )

    async with serving(respond) as url, Client(f"{url}/mcp", mode="legacy") as client:
        result = await client.call_tool("search", {"q": "x"})
    assert result.is_error
    assert "The upstream failed" in result.content[0].text
