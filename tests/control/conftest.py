"""The control plane on a real socket."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest
import uvicorn

from proxy.control import control_app
from tests.telemetry.kit import BUSY, Told

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def told() -> Told:
    return Told(BUSY)


@pytest.fixture
def serve(told: Told) -> Serve:
    """`async with serve(token=…, why_not=…) as client`: a client of a control plane on a free port."""

    @asynccontextmanager
    async def served(
        token: str | None = None, why_not: str | None = None
    ) -> AsyncIterator[httpx.AsyncClient]:
        app = control_app(
            lambda: told.state, told.telemetry, lambda: why_not, token, "1.2.3", told.halted.append
        )
        # The protocol named, or asyncio leaves Nagle's algorithm on and each answer waits 40 ms for an ACK.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_config=None, ws="none", lifespan="on")
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        # Not `serve()`: it takes the signals, and tells only by polling when it has started.
        await server.startup(sockets=[listener])
        try:
            port = listener.getsockname()[1]
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False
            ) as client:
                yield client
        finally:
            await server.shutdown(sockets=[listener])

    return served
