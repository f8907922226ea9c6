"""The breaker's three-state machine: pybreaker's, and this is the one file that imports it.

It never wraps a call: it is not asyncio-ready (it would not await inside), and its lock and wall clock are
its own. It holds the state and tells its listeners; `core/breaker.py` says when to move.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

# pybreaker imports redis where it is installed, for a storage that is not used here: 0.15 s and 10 MiB of a
# process that shares nothing. A name that stands for None cannot be imported, and pybreaker does without.
_STANDS_IN = "redis" not in sys.modules
if _STANDS_IN:
    sys.modules["redis"] = None  # type: ignore[assignment]
try:
    import pybreaker
finally:
    if _STANDS_IN:
        del sys.modules["redis"]

Moved = Callable[[str, str], None]
"""Told after a move: the old phase and the new one."""


class BreakerMachine:
    """A `core.breaker.Machine`. `phase` is kept by a listener, so that reading it costs an attribute."""

    __slots__ = ("_circuit", "phase")

    def __init__(self, name: str, moved: Moved | None = None) -> None:
        self._circuit = pybreaker.CircuitBreaker(name=name)
        self.phase: str = self._circuit.current_state
        self._circuit.add_listener(_Phase(self, moved))

    def open(self) -> None:
        """Refuse calls."""
        self._circuit.open()

    def half_open(self) -> None:
        """Let probes through."""
        self._circuit.half_open()

    def close(self) -> None:
        """Let all calls through."""
        self._circuit.close()


class _Phase(pybreaker.CircuitBreakerListener):
    def __init__(self, machine: BreakerMachine, moved: Moved | None) -> None:
        self._machine = machine
        self._moved = moved

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,  # noqa: ARG002
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        old = self._machine.phase
        self._machine.phase = new_state.name
        if self._moved is not None and old_state is not None:
            self._moved(old, new_state.name)
