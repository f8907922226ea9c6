"""Waiting for what a test expects: for as long as it takes, but not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

BOUND_S = 20.0
"""No wait of a test lasts longer: a test that hangs fails with the line it hung in."""


async def bounded(awaitable: Awaitable[T]) -> T:
    """Await, but not for ever."""
    async with asyncio.timeout(BOUND_S):
        return await awaitable


async def until(holds: Callable[[], object]) -> None:
    """Let the loop turn until `holds()`: for what shows in a state and is told to nobody."""
    async with asyncio.timeout(BOUND_S):
        while not holds():
            await asyncio.sleep(0)


async def settled(count: Callable[[], int]) -> int:
    """Let the loop turn until a count has stayed the same for a hundred turns; the count."""
    before = None
    async with asyncio.timeout(BOUND_S):
        while before != (before := count()):
            for _ in range(100):
                await asyncio.sleep(0)
    return count()
