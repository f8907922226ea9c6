"""What becomes of an upstream besides its calls: it is told here, and noticed before each of them."""

from __future__ import annotations

from proxy.core.events import BreakerMoved, CapMoved, Emit, PauseMoved
from proxy.core.grant import Grant
from proxy.core.rounding import NEVER, wait_until
from proxy.core.target import Target
from proxy.core.verdict import Outcome


class Watch:
    """Tells of every move of a breaker or a pause, and gathers the calls that hang.

    `hung` are those to be cut: take each out, `cut` it, and settle it as failed. `paused` are the upstreams
    with a pause that is on, or was of late. `moved`: a breaker has, since somebody set this back.
    """

    __slots__ = ("_emit", "hung", "moved", "paused")

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.hung: list[Grant] = []
        self.paused: list[Target] = []
        self.moved = False

    def settled(self, grant: Grant, outcome: Outcome, now: float) -> None:
        """A call ended."""
        target = grant.target
        old = "" if target.breaker is None else target.breaker.phase
        why = target.settle(grant.call, grant.turn, outcome, grant.at, now, grant.silent_s, grant)
        if target.cap_moved:
            self._cap_moved(target)
        self._told(target, old, why)

    def answered(self, grant: Grant, silent_s: float, now: float) -> list[str]:
        """A good answer has begun, after `silent_s`. The keys that have room now."""
        target, slots = grant.target, grant.target.cap.slots
        old = "" if target.breaker is None else target.breaker.phase
        self._told(target, old, target.answered(grant, silent_s, now))
        if target.cap_moved:
            self._cap_moved(target)
        return [target.cap.key] if target.cap.slots > slots else []

    def look(self, target: Target, now: float) -> str:
        """What has come meanwhile: silence, calls that hang, a pause. The key that was opened, or ""."""
        breaker, pause = target.breaker, target.pause
        if breaker is not None:
            self._told(target, breaker.phase, target.notice(now))
            while (hung := target.give_up(now)) is not None:
                self.hung.append(hung)
        if pause is None or (why := pause.look(now)) is None:
            return ""
        self._emit(PauseMoved(target.name, pause.on, why))
        if not pause.on:
            return pause.cap.key
        if target not in self.paused:
            self.paused.append(target)
        return ""

    def looks_at(self) -> float:
        """When a pause may be over though nothing happens; inf when none is on."""
        return min([_looks_at(target) for target in self.paused], default=NEVER)

    def due(self, now: float) -> list[Target]:
        """The upstreams to `look` at, for their pause may be over by now."""
        self.paused = [target for target in self.paused if _looks_at(target) < NEVER]
        return [target for target in self.paused if not wait_until(_looks_at(target), now)]

    def _cap_moved(self, target: Target) -> None:
        why, target.cap_moved = target.cap_moved, ""
        if target.learner is not None and (moved := target.learner.news()) is not None:
            self._emit(CapMoved(target.name, *moved, why))

    def _told(self, target: Target, old: str, why: str | None) -> None:
        if why is None:
            return
        assert target.breaker is not None, "only a breaker moves"  # noqa: S101
        self.moved = True
        self._emit(BreakerMoved(target.name, old, target.breaker.phase, why))


def _looks_at(target: Target) -> float:
    return NEVER if target.pause is None else target.pause.looks_at
