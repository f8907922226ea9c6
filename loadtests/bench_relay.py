"""What the relay alone costs: uvicorn, our relay and nothing between, against a cheap upstream.

    python -m loadtests.bench_relay [--seconds 3] [--connections 32] [--profile]

Prints requests per second and the proxy's CPU microseconds per call; with --profile also where they go. The
proxy, the upstream and the load are three processes; take figures only from a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import uvicorn
import uvloop

from loadtests.running import await_port, cpu_s, free_port, running
from proxy.upstream import CallerGone, Request, Upstream, relay

SHOWN_LINES: Final = 32


class Caller:
    """The least that the relay asks of a caller, over plain ASGI."""

    __slots__ = ("_receive", "_send")

    def __init__(self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        self._receive = receive
        self._send = send

    async def next_body(self) -> bytes | None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        body: bytes = message["body"]
        return body or None

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, piece: bytes) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    def flush(self) -> None:
        """ASGI writes at once."""

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Plain ASGI has no such word."""


async def serve(port: int, upstream_port: int) -> None:
    """Relay every request until SIGTERM."""
    upstream = Upstream("origin", f"http://127.0.0.1:{upstream_port}")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        caller = Caller(receive, send)
        request = Request(
            scope["method"].encode(),
            upstream.target(scope["raw_path"], scope["query_string"]),
            scope["headers"],
            await caller.next_body(),
            has_body=True,
            peer=scope["client"][0].encode(),
        )
        await relay(upstream, request, caller)

    config = uvicorn.Config(
        app, "127.0.0.1", port, lifespan="off", access_log=False, log_level="warning",
        server_header=False, date_header=False, http="httptools",
    )  # fmt: skip
    await uvicorn.Server(config).serve()
    await upstream.aclose()


def serve_profiled(port: int, upstream_port: int, file: str) -> None:
    """The same under cProfile, whose figures go to `file`."""
    profile = cProfile.Profile()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # uvicorn raises it once more when it has ended
    profile.runcall(uvloop.run, serve(port, upstream_port))
    profile.dump_stats(file)


def bench(*, seconds: float, connections: int, profile: bool) -> dict[str, float]:
    """Run the three processes; the figures of the load and the proxy's CPU time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        origin, port = free_port(), free_port()
        stats = str(folder / "stats") if profile else ""
        here = [sys.executable, "-m", "loadtests.bench_relay"]
        ours = [*here, "--serve", str(port), str(origin), "--stats", stats]
        with running("origin", [sys.executable, "-m", "loadtests.origin", str(origin)], folder) as upstream:
            await_port(upstream, origin, folder / "origin.log")
            with running("proxy", ours, folder) as proxy:
                await_port(proxy, port, folder / "proxy.log")
                load = [sys.executable, "-m", "loadtests.raw_client", str(port), str(connections)]
                subprocess.run([*load, "0.5"], check=True, capture_output=True)
                before = cpu_s(proxy.pid)
                said = subprocess.run([*load, str(seconds)], check=True, capture_output=True).stdout
                cpu = cpu_s(proxy.pid) - before
        figures = json.loads(said)
        if profile:
            pstats.Stats(stats).sort_stats("tottime").print_stats(SHOWN_LINES)
    return {
        "requests_per_s": figures["requests"] / figures["seconds"],
        "cpu_us_per_call": cpu / max(1, figures["requests"]) * 1e6,
        "good_share": figures["good"] / max(1, figures["requests"]),
        "broken": figures["broken"],
        "p50_ms": figures["p50_ms"],
        "p99_ms": figures["p99_ms"],
    }


def main() -> int:
    """Parse, run, print. Fails unless every answer was good."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--serve", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--stats", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve and asked.stats:
        serve_profiled(*asked.serve, asked.stats)
    elif asked.serve:
        uvloop.run(serve(*asked.serve))
    else:
        figures = bench(seconds=asked.seconds, connections=asked.connections, profile=asked.profile)
        print("  ".join(f"{name}={value:.2f}" for name, value in figures.items()))
        return 0 if figures["good_share"] == 1 and not figures["broken"] else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
