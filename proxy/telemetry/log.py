"""Every log line there is, each with a closed list of fields: no header, no body, no credential."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable
from typing import Final, TextIO

from proxy.core.breaker import OPEN
from proxy.core.call import Call
from proxy.core.events import BreakerMoved, CapMoved, PauseMoved, StoreMoved, WouldQueue, WouldRefuse
from proxy.core.verdict import Reason, Refusal, status_of
from proxy.stores.contact import Phase
from proxy.telemetry.lines import Lines

LINES_PER_S: Final = 10
"""Lines in a second for one reason and route: enough to see who is hit, cheap enough to ignore."""

STORE_LEVELS: Final[dict[str, int]] = {
    Phase.JOINING: logging.INFO,
    Phase.SHARED: logging.INFO,
    Phase.LEARNING: logging.INFO,
    Phase.LOST: logging.WARNING,
    Phase.ALONE: logging.WARNING,
    Phase.GIVEN_UP: logging.ERROR,  # from here on calls are refused, or limits are exceeded
}


class Log:
    """JSON lines to `out` (unless told, standard output).

    `clock` is monotonic seconds and bounds the flood; `wall` is Unix time and stamps the lines.
    """

    def __init__(
        self,
        out: TextIO | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        lines_per_s: int = LINES_PER_S,
    ) -> None:
        self._lines = Lines(out or sys.stdout, clock=clock, wall=wall, per_s=lines_per_s)

    @property
    def suppressed(self) -> int:
        """Lines left out so far because too many alike came within a second."""
        return self._lines.suppressed

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self._lines.lost

    def refused(self, call: Call, priority: str, refusal: Refusal, upstream: str, waited_s: float) -> None:
        """A call was refused. `status` is that of DESIGN §7; MCP answers 200 and says the same inside."""
        self._lines.write(
            logging.WARNING,
            ("refused", refusal.reason, call.route),
            lambda: {
                "reason": refusal.reason,
                "scope": refusal.scope,
                **_who(call, priority, upstream),
                "waited_ms": _ms(waited_s),
                "retry_after_ms": _ms(refusal.retry_after_s),
                "status": status_of(refusal.reason),
                "detail": refusal.limit,
            },
        )

    def rehearsed(self, what: str, event: WouldRefuse | WouldQueue, priority: str) -> None:
        """Something in dry run would have done `what` with a call: refuse it, or let it wait."""
        self._lines.write(
            logging.INFO,
            (what, event.reason, event.call.route),
            lambda: {
                "reason": event.reason,
                "scope": event.scope,
                **_who(event.call, priority, event.upstream),
            },
        )

    def failed(
        self,
        call: Call,
        priority: str,
        upstream: str,
        reason: Reason,
        *,
        status: int | None,
        took_s: float,
        detail: str,
    ) -> None:
        """An admitted call failed upstream. `status` is the upstream's, or None when it gave no answer."""
        self._lines.write(
            logging.ERROR,
            ("failed", reason, call.route),
            lambda: {
                "reason": reason,
                "scope": f"upstream:{upstream}",
                **_who(call, priority, upstream),
                "took_ms": _ms(took_s),
                "status": status,
                "detail": detail,
            },
        )

    def breaker_moved(self, moved: BreakerMoved) -> None:
        """A breaker changed its phase."""
        self._lines.write(
            logging.WARNING if moved.new == OPEN else logging.INFO,
            ("breaker_moved", moved.new, moved.scope or moved.upstream),
            lambda: {
                "upstream": moved.upstream,
                "scope": moved.scope or f"upstream:{moved.upstream}",
                "old": moved.old,
                "new": moved.new,
                "detail": moved.why,
            },
        )

    def cap_moved(self, moved: CapMoved) -> None:
        """A learnt cap is a quarter more or less."""
        self._lines.write(
            logging.INFO,
            ("cap_moved", moved.why, moved.upstream),
            lambda: {"upstream": moved.upstream, "old": moved.old, "new": moved.new, "why": moved.why},
        )

    def store_moved(self, moved: StoreMoved) -> None:
        """This replica stands otherwise with the shared store."""
        self._lines.write(
            STORE_LEVELS.get(moved.new, logging.WARNING),
            ("store_moved", moved.new),
            lambda: {"store": moved.store, "old": moved.old, "new": moved.new, "detail": moved.why},
        )

    def pause_moved(self, moved: PauseMoved) -> None:
        """The classes that can wait are held, or let go."""
        event = "paused" if moved.on else "released"
        self._lines.write(
            logging.WARNING if moved.on else logging.INFO,
            (event, moved.upstream),
            lambda: {"upstream": moved.upstream, "detail": moved.why},
        )

    def crashed(self, error: BaseException) -> None:
        """A defect of the proxy ended a call. `detail` is the traceback: files and lines, no values."""
        trace = "".join(traceback.format_tb(error.__traceback__))
        self._lines.write(
            logging.CRITICAL,
            ("crashed", type(error).__name__),
            lambda: {"error": type(error).__name__, "detail": trace},
        )

    def reloaded(self, ok: bool, problems: str) -> None:
        """A reload took effect, or left the old configuration serving."""
        level, event = (logging.INFO, "reloaded") if ok else (logging.ERROR, "reload_failed")
        self._lines.write(level, (event,), lambda: {"detail": problems})

    def started(self, version: str, listen: str, admin: str) -> None:
        """Both ports are open: the data plane's and the control plane's."""
        self._lines.write(
            logging.INFO, ("started",), lambda: {"version": version, "listen": listen, "admin": admin}
        )

    def draining(self, wait_s: float) -> None:
        """New calls are refused; those that run have `wait_s` seconds to end."""
        self._lines.write(logging.INFO, ("draining",), lambda: {"wait_ms": _ms(wait_s)})

    def stopped(self, detail: str = "") -> None:
        """The last lines: what was suppressed and not yet told, then the end."""
        self._lines.close()
        self._lines.write(logging.INFO, ("stopped",), lambda: {"detail": detail})


def _who(call: Call, priority: str, upstream: str) -> dict[str, object]:
    return {
        "route": call.route,
        "priority": priority,
        "caller": call.caller,
        "run": call.run,
        "upstream": upstream,
        "tool": call.tool,
        "retry": call.is_retry,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
