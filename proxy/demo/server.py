"""The upstream on a real socket, in the loop of whoever asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import uvicorn
from uvicorn.server import ServerState

from proxy.demo.app import DemoUpstream
from proxy.demo.behaviour import Behaviour
from proxy.demo.wire import DemoProtocol

KEEP_ALIVE_S: Final = 75
"""As nginx has it: longer than most pools of clients keep an idle connection."""

_BACKLOG: Final = 2048


@dataclass(frozen=True, slots=True)
class Running:
    """An upstream that serves: its base URL, without a slash at the end, and its parts."""

    url: str
    upstream: DemoUpstream


@asynccontextmanager
async def serve_demo(
    behaviour: Behaviour | None = None, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Running]:
    """Serve a new upstream until the block ends; port 0 takes a free one. Raises OSError for a taken port.

    Installs no signal handlers. At the end every connection is closed at once: calls still open are written
    down as `left`, and nothing of the server remains in the loop.
    """
    upstream = DemoUpstream(behaviour)
    config = uvicorn.Config(
        upstream,
        http=DemoProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    config.load()
    # uvicorn.Server would poll for its end every tenth of a second; its protocol needs no more than this.
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: DemoProtocol(config, state, {}, loop), host, port, backlog=_BACKLOG, start_serving=True
    )
    try:
        bound_host, bound_port = server.sockets[0].getsockname()[:2]
        shown_host = f"[{bound_host}]" if ":" in bound_host else bound_host
        yield Running(f"http://{shown_host}:{bound_port}", upstream)
    finally:
        server.close()
        await _end_connections(state)
        await server.wait_closed()


async def _end_connections(state: ServerState) -> None:
    # One turn first: a connection that was just accepted is among them only after it.
    await asyncio.sleep(0)
    while state.connections or state.tasks:
        for protocol in list(state.connections):
            if isinstance(protocol, DemoProtocol):
                protocol.transport.abort()
        await asyncio.sleep(0)
