"""What the upstream saw, call by call: the oracle that tests read instead of the proxy's own numbers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, Final

from proxy.demo.answers import Answer

KEPT_ENTRIES: Final = 100_000
COUNTED_TOOLS: Final = 1_000


class Ending(StrEnum):
    """How a request ended."""

    DONE = "done"  # answered in full
    FAILED = "failed"  # an error status, or closed without an answer
    REFUSED = "refused"  # 429
    CUT = "cut"  # reset midway through the answer
    LEFT = "left"  # the caller disconnected first


class Entry:
    """One request. Times are monotonic seconds; `started_at` is when it got its slot, None if it never did.

    `is_work` is true for model and tool calls, which take a slot; a list of models or an MCP handshake is
    answered at once and takes none. `body_bytes` counts what arrived, also of a body that never completed.
    `input_tokens` and `output_tokens` are what its caller pays for: of a call that was taken up all that it
    sent, and what of the answer was written, cut or not; of one that failed or was refused nothing.
    """

    __slots__ = (
        "_answer",
        "_header_lines",
        "arrived_at",
        "body_bytes",
        "call_id",
        "dialect",
        "ended_at",
        "ending",
        "is_streamed",
        "is_work",
        "method",
        "model",
        "number",
        "path",
        "priority",
        "query",
        "started_at",
        "status",
        "tool",
    )

    def __init__(
        self, number: int, method: str, path: str, query: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        self.number = number
        self.method = method
        self.path = path
        self.query = query
        self.dialect = self.model = self.tool = ""
        self.call_id = self.priority = ""
        self.is_streamed = self.is_work = False
        self.body_bytes = 0
        self.arrived_at = time.monotonic()
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.status: int | None = None
        self.ending: Ending | None = None
        self._answer: Answer | None = None
        lines = []
        for name, value in headers:
            if name == b"x-call-id":
                self.call_id = value.decode("latin-1")
            elif name == b"x-priority":
                self.priority = value.decode("latin-1")
            lines.append(name + b":" + value)
        # One string a request: a list of pairs would hold five times the memory.
        self._header_lines = b"\n".join(lines)

    def answered_by(self, answer: Answer) -> None:
        """This is what it is answered by."""
        self._answer = answer

    @property
    def input_tokens(self) -> int:
        """Tokens that it sent."""
        return self._answer.input_tokens if self._answer is not None and self._is_paid else 0

    @property
    def output_tokens(self) -> int:
        """Tokens of its answer that were written so far."""
        return self._answer.written_tokens if self._answer is not None and self._is_paid else 0

    @property
    def _is_paid(self) -> bool:
        return self.ending not in (Ending.FAILED, Ending.REFUSED)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers as received, in order, names in lower case, repeats kept."""
        pairs = (line.partition(":") for line in self._header_lines.decode("latin-1").split("\n") if line)
        return [(name, value) for name, _, value in pairs]

    def header(self, name: str) -> str | None:
        """The first value of a header, by its name in lower case."""
        return next((value for each, value in self.headers if each == name), None)

    def as_row(self) -> dict[str, Any]:
        """The entry as JSON types, for `GET /_demo/ledger?entries=1`."""
        row = {name: getattr(self, name) for name in self.__slots__ if not name.startswith("_")}
        tokens = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        return row | tokens | {"headers": self.headers}

    def __repr__(self) -> str:
        """As a failing test wants to read it."""
        return f"<Entry {self.number} {self.method} {self.path} status={self.status} ending={self.ending}>"


class Ledger:
    """Every request seen, the last `KEPT_ENTRIES` of them as entries; the counters are exact for all.

    `arrivals` and the endings count every request. `in_flight` and the peaks count work only, waiting for a
    slot or served, from the moment its body is complete until its answer is written or its caller has closed.
    """

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque(maxlen=KEPT_ENTRIES)
        self.arrivals = 0
        self.in_flight = 0
        self.peak_in_flight = 0
        self.peak_by_tool: dict[str, int] = {}
        self.ended: dict[Ending, int] = dict.fromkeys(Ending, 0)
        self._in_flight_by_tool: dict[str, int] = {}
        self._in_work: dict[Entry, Callable[[], bool]] = {}
        self._numbers = 0
        self._watching: list[asyncio.Future[None]] = []

    @property
    def completed(self) -> int:
        """Requests answered in full."""
        return self.ended[Ending.DONE]

    def arrive(self, method: str, path: str, query: str, headers: Iterable[tuple[bytes, bytes]]) -> Entry:
        """Write down a request. Each entry must be given to `end` once."""
        self._numbers += 1
        entry = Entry(self._numbers, method, path, query, headers)
        self.arrivals += 1
        self.entries.append(entry)
        self._tell()
        return entry

    def begin_work(self, entry: Entry, has_left: Callable[[], bool] = bool) -> None:
        """Count a recognised model or tool call as in flight.

        `has_left` is asked before a new peak is written down: a proxy may send its next call as soon as it
        has closed a connection, and this loop may read the two in any order.
        """
        entry.is_work = True
        tool_now = self._in_flight_by_tool.get(entry.tool, 0)
        if self.in_flight >= self.peak_in_flight or tool_now >= self.peak_by_tool.get(entry.tool, 0):
            for gone in [each for each, left in self._in_work.items() if left()]:
                self._end_work(gone)
        self._in_work[entry] = has_left
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        tool = entry.tool
        if tool and (tool in self.peak_by_tool or len(self.peak_by_tool) < COUNTED_TOOLS):
            now = self._in_flight_by_tool.get(tool, 0) + 1
            self._in_flight_by_tool[tool] = now
            self.peak_by_tool[tool] = max(self.peak_by_tool.get(tool, 0), now)
        self._tell()

    def start(self, entry: Entry) -> None:
        """The call has its slot."""
        entry.started_at = time.monotonic()
        self._tell()

    def end(self, entry: Entry, ending: Ending) -> None:
        """Close an entry."""
        entry.ended_at = time.monotonic()
        entry.ending = ending
        self.ended[ending] += 1
        self._end_work(entry)
        self._tell()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for `holds()`, which is asked after each change of the ledger. The bound is the caller's."""
        while not holds():
            changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._watching.append(changed)
            await changed

    def reset(self) -> None:
        """Forget all that has ended. Requests still open stay, as if they had just arrived."""
        still_open = self.arrivals - sum(self.ended.values())
        kept = [entry for entry in self.entries if entry.ended_at is None]
        self.entries.clear()
        self.entries.extend(kept)
        self.arrivals = still_open
        self.ended = dict.fromkeys(Ending, 0)
        self.peak_in_flight = self.in_flight
        self._in_flight_by_tool = {tool: now for tool, now in self._in_flight_by_tool.items() if now}
        self.peak_by_tool = dict(self._in_flight_by_tool)

    def snapshot(self) -> dict[str, Any]:
        """The counters, as JSON types."""
        return {
            "arrivals": self.arrivals,
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
            "peak_by_tool": dict(self.peak_by_tool),
            "completed": self.completed,
            "ended": {ending.value: count for ending, count in self.ended.items()},
        }

    def _end_work(self, entry: Entry) -> None:
        if self._in_work.pop(entry, None) is None:
            return
        self.in_flight -= 1
        if entry.tool in self._in_flight_by_tool:
            self._in_flight_by_tool[entry.tool] -= 1

    def _tell(self) -> None:
        if self._watching:
            watching, self._watching = self._watching, []
            for changed in watching:
                if not changed.done():
                    changed.set_result(None)
