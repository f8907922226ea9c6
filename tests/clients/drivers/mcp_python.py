"""The `mcp` package, version 2 or 1, whichever is installed: one session, two calls of a tool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import mcp
from driving import KEY, Ask, drive, said
from mcp.client.streamable_http import streamable_http_client


def signed(asked: Ask) -> dict[str, str]:
    """The headers of a caller who is known."""
    return {"authorization": f"Bearer {KEY}", **asked.headers}


if version("mcp").startswith("1."):
    import httpx

    @asynccontextmanager
    async def session(asked: Ask) -> AsyncIterator[Any]:
        async with (
            httpx.AsyncClient(headers=signed(asked), timeout=30) as http,
            streamable_http_client(asked.base, http_client=http) as (read, write, _),
            mcp.ClientSession(read, write) as opened,
        ):
            await opened.initialize()
            yield opened
else:
    import httpx2

    @asynccontextmanager
    async def session(asked: Ask) -> AsyncIterator[Any]:
        async with (
            httpx2.AsyncClient(headers=signed(asked), timeout=30) as http,
            mcp.Client(streamable_http_client(asked.base, http_client=http)) as opened,
        ):
            yield opened


async def talk(asked: Ask) -> dict[str, Any]:
    async with session(asked) as opened:
        await opened.list_tools()
        result = await opened.call_tool("search", {"query": "room"})
        # A session that a refusal has killed does not answer this.
        await opened.list_tools()
        return said(result.content[0].text)


drive("mcp", lambda asked: asyncio.run(talk(asked)))
