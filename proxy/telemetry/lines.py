"""JSON lines, bounded: a flood of refusals becomes a few lines a second and a count of the rest."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

MOST_KEYS: Final = 2_000
"""Kinds of lines told apart; beyond them, lines share one allowance for each event."""

LONGEST_TEXT: Final = 2_000
"""Characters of one field. Names of tools come from outside and may be as long as a path."""

SECRET: Final = re.compile(
    r"(?i:\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}"  # an authorization header
    r"|\b(?:sk|rk|pk|xox[abp]|gh[opsu]|github_pat|glpat|hf)[-_][\w.-]{12,}"  # keys by their makers' prefixes
    r"|\b(?:AIza|AKIA|eyJ)[\w.-]{12,}"
    r"|(?<=://)[^/\s@]+(?=@)"  # user and password in a URL
)
"""No field should ever hold one of these; the tool's name and the text of an error could."""


class _Window:
    """One second of one key: when it ends, the lines written in it, and those suppressed since the last."""

    __slots__ = ("end", "lines", "suppressed")

    def __init__(self) -> None:
        self.end = float("-inf")
        self.lines = self.suppressed = 0


class Lines:
    """Writes one JSON object a line to `out`: `ts`, `event`, `level`, then the fields.

    At most `per_s` lines in a second for one key; the next line of that key says how many were `suppressed`.
    A line that cannot be written (a closed pipe) is counted in `lost`, and nothing is raised: no call may
    fail because its log line did. `clock` is monotonic seconds, `wall` is Unix time.
    """

    def __init__(
        self, out: TextIO, *, clock: Callable[[], float], wall: Callable[[], float], per_s: int
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._per_s = per_s
        self._windows: dict[tuple[str, ...], _Window] = {}
        self.suppressed = 0
        self.lost = 0
        # Everything given: structlog's global configuration belongs to whoever embeds us.
        self._logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            structlog.WriteLogger(out),
            processors=[self._stamp, _clean, structlog.processors.JSONRenderer()],
            wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
            context_class=dict,
        ).bind()

    def write(self, level: int, key: tuple[str, ...], fields: Callable[[], Mapping[str, object]]) -> None:
        """One line, if its key has one left in this second. `key[0]` is the event.

        `fields` is asked only then: in a flood most lines are not written.
        """
        suppressed = self._admit(key)
        if suppressed is None:
            return
        more = {"suppressed": suppressed} if suppressed else {}
        self._write(level, key[0], {**fields(), **more})

    def close(self) -> None:
        """Say what is still suppressed. The output stays open: it is not ours."""
        for key, window in self._windows.items():
            if window.suppressed:
                fields = {"of": "/".join(key), "suppressed": window.suppressed}
                self._write(logging.INFO, "suppressed", fields)
                window.suppressed = 0

    def _admit(self, key: tuple[str, ...]) -> int | None:
        """How many lines alike were suppressed before this one; None when this one is suppressed too."""
        window = self._windows.get(key) or self._window(key)
        now = self._clock()
        if now >= window.end:
            window.end, window.lines = now + 1.0, 0
        if window.lines >= self._per_s:
            window.suppressed += 1
            self.suppressed += 1
            return None
        window.lines += 1
        suppressed, window.suppressed = window.suppressed, 0
        return suppressed

    def _window(self, key: tuple[str, ...]) -> _Window:
        if len(self._windows) >= MOST_KEYS:
            key = key[:1]
        return self._windows.setdefault(key, _Window())

    def _write(self, level: int, event: str, fields: Mapping[str, object]) -> None:
        try:
            self._logger.log(level, event, **fields)
        except (OSError, ValueError):  # a closed pipe, a full disk; a closed file is a ValueError
            self.lost += 1

    def _stamp(self, _: WrappedLogger, level: str, fields: EventDict) -> EventDict:
        """The three fields every line begins with."""
        moment = datetime.fromtimestamp(self._wall(), UTC).isoformat(timespec="milliseconds")
        front = {"ts": moment.replace("+00:00", "Z"), "event": fields.pop("event"), "level": level}
        return {**front, **fields}


def _clean(_: WrappedLogger, __: str, fields: EventDict) -> EventDict:
    """Nothing without end, and nothing that looks like a credential. (Line breaks are JSON's business.)"""
    return {
        name: SECRET.sub("[redacted]", value[:LONGEST_TEXT]) if isinstance(value, str) else value
        for name, value in fields.items()
    }
