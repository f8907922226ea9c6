"""`python -m proxy.demo`: the upstream in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from dataclasses import fields

import uvloop

from proxy.demo.behaviour import Behaviour
from proxy.demo.server import serve_demo


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m proxy.demo",
        description="A simulated model and tool upstream. Its modes are switched by POST /_demo/mode.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    start = Behaviour()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000, help="0 takes a free one")
    parser.add_argument("--slots", type=int, default=start.slots, help="calls served at once")
    parser.add_argument(
        "--latency", dest="latency_s", type=float, default=start.latency_s, help="seconds, the median"
    )
    parser.add_argument(
        "--sigma", type=float, default=start.sigma, help="spread of a lognormal latency; 0: none"
    )
    parser.add_argument("--knee", type=int, default=start.knee, help="calls in flight above which times grow")
    parser.add_argument(
        "--events", dest="stream_events", type=int, default=start.stream_events, help="words answered"
    )
    parser.add_argument(
        "--gap", dest="event_gap_s", type=float, default=start.event_gap_s, help="seconds in between"
    )
    parser.add_argument("--seed", type=int, default=start.seed)
    parser.add_argument(
        "--tool-bytes", type=int, default=start.tool_bytes, help="least size of a REST tool's answer"
    )
    parser.add_argument("--mcp-sse", action="store_true", help="answer MCP calls as event streams")
    return parser


async def _serve(behaviour: Behaviour, host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serve_demo(behaviour, host, port) as running:
        sys.stdout.write(f"{running.url}\n")
        sys.stdout.flush()
        await stop.wait()


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. The first line of the output is the URL. A bad option exits with 2."""
    parser = _options()
    options = vars(parser.parse_args(arguments))
    known = {each.name for each in fields(Behaviour)}
    try:
        behaviour = Behaviour(**{name: value for name, value in options.items() if name in known})
    except ValueError as exc:
        parser.error(str(exc))
    try:
        uvloop.run(_serve(behaviour, options["host"], options["port"]))
    except OSError as exc:
        parser.error(f"cannot listen on {options['host']}:{options['port']}: {exc}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
