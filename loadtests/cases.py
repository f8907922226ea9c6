"""What proxies are asked to do when they are compared, and what is asked of ours in it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final


class Case(StrEnum):
    """One kind of work, measured for every proxy that can do it."""

    FORWARD = "forward"  # a 1 kB POST to the upstream, and its 300 B answer back
    TLS = "tls"  # the same, to an upstream that speaks TLS and is verified
    REFUSE = "refuse"  # 429, since the bucket of one call an hour is empty
    LARGE = "large"  # a prompt of 100 kB, and the 300 B answer back
    SSE = "sse"  # many streams of events at a steady rate
    MEMORY = "memory"  # many open streams on which nothing happens
    LATENCY = "latency"  # calls at a steady rate, half of what the proxy can do


@dataclass(frozen=True, slots=True)
class Site:
    """Where a proxy is to work: its own port, its upstream's, and the PEM file that proves a TLS upstream."""

    case: Case
    port: int
    upstream_port: int
    ca: Path | None = None

    @property
    def refuses(self) -> bool:
        return self.case is Case.REFUSE

    @property
    def tls_ca(self) -> Path | None:
        """The authority to verify the upstream with; None when it speaks plain HTTP."""
        return self.ca if self.case is Case.TLS else None


@dataclass(frozen=True, slots=True)
class Goal:
    """What issue 3 asks of one case.

    `figure` is the one that is judged: ours divided by Envoy's when `is_ratio`, else ours alone.
    """

    figure: str
    bound: float
    at_least: bool
    is_ratio: bool
    said: str

    def is_met(self, value: float) -> bool:
        """nan meets nothing."""
        return value >= self.bound if self.at_least else value <= self.bound


GOALS: Final = {
    Case.FORWARD: Goal("per_s", 1.0, at_least=True, is_ratio=True, said="calls/s of a core"),
    Case.TLS: Goal("per_s", 1.0, at_least=True, is_ratio=True, said="calls/s of a core"),
    Case.REFUSE: Goal("per_s", 2.0, at_least=True, is_ratio=True, said="refusals/s of a core"),
    Case.LARGE: Goal("per_s", 1.0, at_least=True, is_ratio=True, said="calls/s of a core"),
    Case.SSE: Goal("cpu_us", 1.0, at_least=False, is_ratio=True, said="CPU per event"),
    Case.MEMORY: Goal("kb_each", 0.5, at_least=False, is_ratio=True, said="memory per open stream"),
    Case.LATENCY: Goal("added_p99_ms", 1.0, at_least=False, is_ratio=False, said="added p99, ms"),
}
