"""Streams of events: what an event costs the proxy's core, and what an open stream costs its memory."""

from __future__ import annotations

import sys
from typing import Any, Final

from loadtests.compare.bench import Bench, Turn
from loadtests.compare.calls import told_by
from loadtests.running import StartError

DELIVERED: Final = 0.99
"""Below this share of the events that were due, somebody could not keep up, and nothing can be compared."""
FULL: Final = 0.95
"""Above this share of its core a proxy queues, and the delays say nothing but that."""


def client_command(what: str, turn: Turn, *numbers: float) -> list[str]:
    """Our callers of streams, as a process of its own."""
    common = [str(turn.port), turn.path, str(turn.pid)]
    return [sys.executable, "-m", "loadtests.sse_client", what, *common, *map(str, numbers)]


def measure_events(bench: Bench, turn: Turn, seconds: float) -> dict[str, Any]:
    """CPU per event, and how late events come after their stamps."""
    asked = bench.asked
    command = client_command("events", turn, asked.streams, asked.events, seconds)
    told = told_by(command, bench, seconds, turn.name)
    if not told["events"]:
        raise StartError(f"{turn.name} delivered no event: {told}")
    return {
        "cpu_us": told["cpu_s"] / told["events"] * 1e6 if turn.pid else float("nan"),
        "per_s": told["events"] / told["seconds"],
        "delivered": told["events"] / told["expected"],
        "busy": told["cpu_s"] / told["seconds"],
        "p50_ms": told["p50_ms"],
        "p99_ms": told["p99_ms"],
        "void": why_void(told),
    }


def why_void(told: dict[str, Any]) -> str:
    """Why a window of events proves nothing, or "" if it stands."""
    share, busy = told["events"] / told["expected"], told["cpu_s"] / told["seconds"]
    if told["lost"]:
        return f"{told['lost']} streams ended early"
    if share < DELIVERED:
        return f"{share:.1%} of the events came (client {told['generator_busy']:.0%} busy)"
    return f"core {busy:.0%} busy: delays are its queue" if busy > FULL else ""


def measure_memory(bench: Bench, turn: Turn, _seconds: float) -> dict[str, Any]:
    """What one more open stream makes the proxy hold, in kB of its private pages.

    `turn` is a proxy that has just been started: what was freed is seldom given back to the system.
    """
    told = told_by(client_command("memory", turn, bench.asked.idle_streams), bench, 30, turn.name)
    (_, before), (some, part), (many, full) = told["held"]
    missing = bench.asked.idle_streams - told["opened"]
    return {
        "kb_each": (full - before) / many / 1000,
        "kb_each_more": (full - part) / (many - some) / 1000,
        "base_mb": before / 1e6,
        "void": f"{missing} of the streams did not open" if missing else "",
    }
