"""What becomes of an upstream besides its calls: it is told here, and noticed before each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.core.breaker import UNCOUNTED, Breaker
from proxy.core.events import BreakerMoved, CapMoved, Emit, PauseMoved, WouldRefuse
from proxy.core.grant import Grant
from proxy.core.rounding import NEVER, wait_until
from proxy.core.target import Target
from proxy.core.verdict import Outcome, Reason

if TYPE_CHECKING:
    from proxy.core.tools import Tool


class Watch:
    """Tells of every move of a breaker or a pause, and gathers the calls that hang.

    `hung` are those to be cut: take each out, `cut` it, and settle it as failed. `paused` are the upstreams
    with a pause that is on, or was of late. `moved`: a breaker has that is enforced, since somebody set this
    back.
    """

    __slots__ = ("_emit", "hung", "moved", "paused")

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.hung: list[Grant] = []
        self.paused: list[Target] = []
        self.moved = False

    def begun(self, grant: Grant) -> None:
        """A call goes under this grant."""
        grant.target.begun(grant)
        if grant.own_turn == UNCOUNTED and grant.call.apart is not None:
            scope = grant.call.apart.scope
            self._emit(WouldRefuse(grant.call, grant.target.name, Reason.BREAKER_OPEN, scope))

    def settled(self, grant: Grant, outcome: Outcome, now: float) -> None:
        """A call ended."""
        target = grant.target
        old = "" if target.breaker is None else target.breaker.phase
        why = target.settle(grant.call, grant.turn, outcome, grant.at, now, grant.silent_s, grant)
        if target.cap_moved:
            self._cap_moved(target)
        self._told(target, old, why)
        if (tool := grant.call.apart) is not None:
            old = "" if tool.breaker is None else tool.breaker.phase
            self._told(target, old, tool.settle(grant, outcome, now), tool)
            self.look_at(tool, now)

    def answered(self, grant: Grant, silent_s: float, now: float) -> list[str]:
        """A good answer has begun, after `silent_s`. The keys that have room now."""
        target, slots = grant.target, grant.target.cap.slots
        old = "" if target.breaker is None else target.breaker.phase
        self._told(target, old, target.answered(grant, silent_s, now))
        if target.cap_moved:
            self._cap_moved(target)
        opened = [target.cap.key] if target.cap.slots > slots else []
        if (tool := grant.call.apart) is not None:
            old = "" if tool.breaker is None else tool.breaker.phase
            slots = tool.cap.slots
            self._told(target, old, tool.answered(grant, silent_s, now), tool)
            if tool.cap.slots > slots:
                opened.append(tool.cap.key)
        return opened

    def look_at(self, tool: Tool, now: float) -> None:
        """What has come meanwhile of a tool that is set apart: silence, calls that hang."""
        if tool.breaker is None:
            return
        old = tool.breaker.phase
        self._told(tool.target, old, tool.notice(now), tool)
        while (hung := tool.give_up(now)) is not None:
            self.hung.append(hung)

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

    def _told(self, target: Target, old: str, why: str | None, tool: Tool | None = None) -> None:
        if why is None:
            return
        breaker: Breaker | None = target.breaker if tool is None else tool.breaker
        assert breaker is not None, "only a breaker moves"  # noqa: S101
        if breaker.enforced:  # in dry run it is nothing to who waits
            self.moved = True
        scope = "" if tool is None else f"{tool.scope.partition('/')[0]}/{tool.label}"
        self._emit(BreakerMoved(target.name, old, breaker.phase, why, scope))


def _looks_at(target: Target) -> float:
    return NEVER if target.pause is None else target.pause.looks_at
