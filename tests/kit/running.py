"""A whole proxy on real sockets, in front of the demo upstream or of any other."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from proxy.app import Proxy
from proxy.demo import Behaviour, DemoUpstream, serve_demo
from proxy.server import serving
from proxy.settings import parse
from proxy.telemetry import Log
from tests.kit.ports import ANY_PORTS

BREAKER = "{minimum_calls: 4, window: 10s, failure_ratio: 0.5, open_for: 1s, probes: 1}"


@dataclass
class Running:
    """One proxy: where it is, what it logged, and (if there is one) the simulated upstream behind it."""

    url: str
    control: str
    proxy: Proxy
    log: io.StringIO
    upstream: DemoUpstream | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def reload(self, yaml: str) -> None:
        """Take up this configuration instead, as when its file changes."""
        self.proxy.reload(parse(ANY_PORTS + yaml, "test.yaml", {}))

    async def metrics(self) -> str:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{self.control}/metrics")).text

    async def state(self) -> dict[str, Any]:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{self.control}/state")).json()


@contextlib.asynccontextmanager
async def running(yaml: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Running]:
    """The proxy with this configuration, on free ports."""
    settings = parse(ANY_PORTS + yaml, "test.yaml", env or {})
    log = io.StringIO()
    async with serving(settings, Log(log)) as started:
        yield Running(f"http://{started.data}", f"http://{started.control}", started.proxy, log)


@contextlib.asynccontextmanager
async def before_demo(
    behaviour: Behaviour | None = None, *, upstream: str = "", route: str = "", top: str = ""
) -> AsyncIterator[Running]:
    """The proxy before the demo upstream, with routes /openai, /anthropic, /gemini, /tools/{tool} and /mcp.

    `upstream`, `route` and `top` are YAML added to every upstream, every route, and the top.
    """
    async with (
        serve_demo(behaviour or Behaviour(latency_s=0.0)) as demo,
        running(yaml_before(demo.url, upstream=upstream, route=route, top=top)) as proxy,
    ):
        proxy.upstream = demo.upstream
        yield proxy


def yaml_before(url: str, *, upstream: str = "", route: str = "", top: str = "") -> str:
    routes = {
        "openai": ("/openai/", "openai", ""),
        "anthropic": ("/anthropic/", "anthropic", ""),
        "tools": ("/tools/{tool}", "rest", "/tools"),
        "mcp": ("/mcp", "mcp", "/mcp"),
        "gemini": ("/gemini/", "gemini", ""),
    }
    lines = [top, "upstreams:"]
    for name, (_, dialect, base) in routes.items():
        lines += [f"  {name}:", f"    url: {url}{base}", f"    dialect: {dialect}"]
        lines += [f"    {line}" for line in upstream.splitlines()]
    lines.append("routes:")
    for name, (path, _, _) in routes.items():
        lines += [f"  - name: {name}", f'    path: "{path}"', f"    upstream: {name}"]
        lines += [f"    {line}" for line in route.splitlines()]
    return "\n".join(lines) + "\n"


CHAT = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
