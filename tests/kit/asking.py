"""Asking an upstream through the relay, as the pipeline does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from proxy.upstream import Request, Result, Upstream, relay
from tests.kit.caller import FakeCaller


@asynccontextmanager
async def upstream_at(url: str, **options: Any) -> AsyncIterator[Upstream]:
    """An upstream of which nothing is left open afterwards."""
    upstream = Upstream("demo", url, **options)
    try:
        yield upstream
    finally:
        upstream.abort()
        await upstream.aclose()


def get(target: bytes = b"/", headers: list[tuple[bytes, bytes]] | None = None, **more: Any) -> Request:
    """A GET."""
    return Request(b"GET", target, headers or [], **more)


def post(
    body: bytes | None = b"{}",
    *,
    target: bytes = b"/",
    headers: list[tuple[bytes, bytes]] | None = None,
    **more: Any,
) -> Request:
    """A POST of a body that is here already, or, with None and `length`, of one to be pulled."""
    return Request(b"POST", target, headers or [], body=body, has_body=True, **more)


async def ask(
    upstream: Upstream, request: Request, caller: FakeCaller | None = None, **options: Any
) -> tuple[Result, FakeCaller]:
    """One exchange, and what its caller got."""
    caller = caller or FakeCaller()
    result = await relay(upstream, request, caller, **options)
    assert not caller.is_watched, "the relay let go of its caller"
    return result, caller
