from __future__ import annotations

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from proxy.demo import Ending, Outage
from proxy.demo.mcp import LONGEST_SESSION_LIST

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
ERAS = pytest.mark.parametrize("era", ["auto", "legacy", "2026-07-28"])


def rpc(method, params=None, **more):
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params or {}, **more}


def modern(method, **more):
    return {"mcp-protocol-version": "2026-07-28", "mcp-method": method} | more


@pytest.fixture
def url(demo):
    return demo.url + "/mcp"


@ERAS
async def test_the_real_client_lists_and_calls_the_tools(url, era):
    async with Client(url, mode=era) as client:
        listed = await client.list_tools()
        assert [tool.name for tool in listed.tools] == ["search", "create_note"]
        found = await client.call_tool("search", {"query": "room"})
        assert found.content[0].text == "1 note found for “room”."
        assert not found.is_error
        made = await client.call_tool("create_note", {"title": "Today", "text": "All well"})
        assert made.content[0].text == "Note “Today” created."


@ERAS
async def test_the_real_client_reads_answers_framed_as_event_streams(demo, url, era):
    demo.upstream.behaviour.mcp_sse = True
    async with Client(url, mode=era) as client:
        found = await client.call_tool("search", {"query": "room"})
    assert found.content[0].text == "1 note found for “room”."
    assert next(entry for entry in demo.upstream.ledger.entries if entry.is_work).is_streamed


async def test_a_client_of_today_discovers_and_opens_no_session(demo, url):
    async with Client(url) as client:
        assert client.protocol_version == "2026-07-28"
        await client.call_tool("search", {"query": "room"})
    entries = demo.upstream.ledger.entries
    assert next(entry.header("mcp-method") for entry in entries) == "server/discover"
    assert all(entry.header("mcp-session-id") is None for entry in entries)


async def test_an_older_client_shakes_hands_and_ends_its_session(demo, url):
    async with Client(url, mode="legacy") as client:
        assert client.protocol_version == "2025-11-25"
        await client.list_tools()
        await client.call_tool("search", {"query": "room"})
    first, *others = demo.upstream.ledger.entries
    assert first.header("mcp-session-id") is None
    assert {entry.header("mcp-session-id") for entry in others} == {"demo-session-1"}
    assert [entry.status for entry in others if entry.method == "DELETE"] == [204]


@ERAS
async def test_only_tool_calls_are_work_and_name_their_tool(demo, url, era):
    async with Client(url, mode=era) as client:
        await client.list_tools()
        await client.call_tool("search", {"query": "room"})
    work = [(entry.tool, entry.ending) for entry in demo.upstream.ledger.entries if entry.is_work]
    assert work == [("search", Ending.DONE)]
    assert demo.upstream.ledger.peak_by_tool == {"search": 1}


@ERAS
async def test_an_unknown_tool_is_a_protocol_error(url, era):
    async with Client(url, mode=era) as client:
        with pytest.raises(MCPError, match="Unknown tool: sing"):
            await client.call_tool("sing", {})


async def test_a_missing_argument_is_an_error_the_model_can_read(url):
    async with Client(url) as client:
        made = await client.call_tool("create_note", {"title": "Today"})
    assert made.is_error
    assert made.content[0].text == "create_note needs the text argument text."


async def test_an_outage_with_500_reaches_the_real_client_as_an_error_of_its_call(demo, url):
    async with Client(url) as client:
        demo.upstream.behaviour.mode = Outage(answer="500")
        with pytest.raises(MCPError, match="out of order"):
            await client.call_tool("search", {"query": "room"})


async def test_headers_given_to_the_client_arrive(demo, url):
    async with (
        httpx2.AsyncClient(headers={"authorization": "Bearer secret"}) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        await client.call_tool("search", {"query": "room"})
    assert {entry.header("authorization") for entry in demo.upstream.ledger.entries} == {"Bearer secret"}


@pytest.mark.parametrize(
    ("headers", "params", "code"),
    [
        (modern("tools/list"), {}, -32602),
        (modern("tools/call"), {"_meta": META}, -32020),
        ({"mcp-protocol-version": "2026-07-28"}, {"_meta": META}, -32020),
        (
            modern("tools/list"),
            {"_meta": META | {"io.modelcontextprotocol/protocolVersion": "2027-01-01"}},
            -32020,
        ),
    ],
)
async def test_a_modern_request_that_disagrees_with_its_headers_is_a_400(http, headers, params, code):
    answer = await http.post("/mcp", json=rpc("tools/list", params), headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert answer.json()["id"] == 7


@pytest.mark.parametrize("more", [{}, {"mcp-method": "ping"}])
async def test_an_unknown_version_is_told_the_known_ones(http, more):
    params = {"_meta": META | {"io.modelcontextprotocol/protocolVersion": "2027-01-01"}}
    answer = await http.post(
        "/mcp", json=rpc("ping", params), headers={"mcp-protocol-version": "2027-01-01"} | more
    )
    error = answer.json()["error"]
    assert error["code"] == -32022
    assert error["data"]["supported"][0] == "2026-07-28"


async def test_an_unknown_session_is_a_404_and_no_session_at_all_is_served(http):
    lost = await http.post("/mcp", json=rpc("tools/list"), headers={"mcp-session-id": "gone"})
    assert lost.status_code == 404
    served = await http.post("/mcp", json=rpc("tools/list"))
    assert [tool["name"] for tool in served.json()["result"]["tools"]] == ["search", "create_note"]


@pytest.mark.parametrize(
    ("body", "code"), [(b"{", -32700), (b"[]", -32600), (b'{"jsonrpc":"2.0","id":[]}', -32600)]
)
async def test_what_is_no_single_message_is_a_400(http, body, code):
    answer = await http.post("/mcp", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


async def test_a_notification_is_accepted_without_an_answer(http):
    answer = await http.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert (answer.status_code, answer.content) == (202, b"")


async def test_a_ping_is_answered(http):
    answer = await http.post("/mcp", json=rpc("ping"))
    assert answer.json() == {"jsonrpc": "2.0", "id": 7, "result": {}}


async def test_an_unknown_method_is_named(http):
    answer = await http.post("/mcp", json=rpc("resources/list"))
    assert answer.json()["error"]["message"] == "Method not found: resources/list"


async def test_the_list_of_sessions_has_a_bound(demo):
    server = demo.upstream._mcp
    server.sessions.update((str(number), None) for number in range(LONGEST_SESSION_LIST))
    async with Client(demo.url + "/mcp", mode="legacy") as client:
        await client.list_tools()
        assert len(server.sessions) == LONGEST_SESSION_LIST
        assert "0" not in server.sessions
