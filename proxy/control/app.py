"""The Starlette app: `/healthz`, `/readyz`, `/metrics`, `/state`, the halt of a run; `/` lists them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from proxy.control.token import RequireToken
from proxy.core.state import GateState
from proxy.telemetry import Telemetry

OPEN_PATHS: Final = ("/healthz", "/readyz")
"""What a probe asks: it has no token, and learns nothing that a closed port would not tell."""

INDEX: Final = {
    "/healthz": "200 while the process answers",
    "/readyz": "200 while new calls are taken, else 503 and why not",
    "/metrics": "Prometheus text, or OpenMetrics by Accept",
    "/state": "lanes, caps, buckets and breakers at this instant, as JSON",
}

CHANGES: Final = {
    "POST /runs/RUN/halt": "no further call of this run goes, here and at the replicas that share the store",
}

LONGEST_RUN: Final = 128
"""A caller's name and a hash: 77 characters at most."""

_NOT_STORED: Final = {"cache-control": "no-store"}


def control_app(
    gate_state: Callable[[], GateState],
    telemetry: Telemetry,
    readiness: Callable[[], str | None],
    token: str | None,
    version: str,
    halt: Callable[[str], None],
) -> Starlette:
    """The control plane. `readiness` says why no new calls are taken, or None when they are.

    `halt` ends a run, which is named as in `/state`.

    With a `token`, all but the two probes ask for it. Before binding a port, ask `check_exposure`.
    Everything runs on the event loop, in no thread: what `/state` and `/metrics` show is one instant.
    """

    async def healthz(_: Request) -> Response:
        return _json({"alive": True})

    async def readyz(_: Request) -> Response:
        why_not = readiness()
        if why_not is None:
            return _json({"ready": True})
        return _json({"ready": False, "why": why_not}, status=503)

    async def metrics(request: Request) -> Response:
        pieces, content_type = telemetry.pieces(request.headers.get("accept", ""))
        body = bytearray()
        for piece in pieces:
            body += piece
            await asyncio.sleep(0)  # the data plane's turn
        return Response(bytes(body), headers={"content-type": content_type, **_NOT_STORED})

    async def state(_: Request) -> Response:
        return _json(gate_state())

    async def halted(request: Request) -> Response:
        run = request.path_params["run"]
        if not 0 < len(run) <= LONGEST_RUN:
            return _json({"error": f"a run's name has up to {LONGEST_RUN} characters"}, status=400)
        halt(run)
        return _json({"halted": run})

    async def index(_: Request) -> Response:
        return _json({"backpressure": version, "paths": INDEX, "changes": CHANGES})

    app = Starlette(
        routes=[
            Route("/", index),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/state", state),
            Route("/runs/{run:path}/halt", halted, methods=["POST"]),
        ],
        middleware=[Middleware(RequireToken, token=token, open_paths=OPEN_PATHS)] if token else [],
        exception_handlers={HTTPException: _problem},
    )
    app.router.redirect_slashes = False  # `/state/` is a wrong path, not another spelling
    return app


def _json(content: object, status: int = 200) -> Response:
    """msgspec writes dataclasses as they are, and infinity as null, for which `json` has no valid form."""
    headers = {"content-type": "application/json", **_NOT_STORED}
    return Response(msgspec.json.encode(content), status_code=status, headers=headers)


async def _problem(_: Request, exc: Exception) -> Response:
    """404 and 405, in JSON as all the rest."""
    if not isinstance(exc, HTTPException):
        raise exc
    body = {"error": exc.detail, "paths": list(INDEX)}
    return JSONResponse(body, status_code=exc.status_code, headers=exc.headers)
