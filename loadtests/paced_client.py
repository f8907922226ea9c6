"""An open-loop load generator: calls at a constant rate, whether or not the answers keep up.

    python -m loadtests.paced_client PORT PATH CALLS_PER_S SECONDS

A latency counts from the moment a call was due, so that a server that stalls cannot hide the calls that it
kept from being sent. One thread around select(2), whose timeout is microseconds where epoll's and the loops'
timers are milliseconds: calls sent a millisecond's worth at a time would measure that, not the server.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import deque
from typing import Any, Final

from loadtests.figures import percentile
from loadtests.raw_client import wire_request

MOST_CONNECTIONS: Final = 256
"""Calls that wait for their answer at once. The next wait for a connection, and count from when due."""
LENGTH: Final = b"content-length:"


class Paced:
    """A run of calls over kept connections. `late_s`: how long after it was due the generator noticed each.

    `broken` counts answers that were not 200 and connections that were ended; one of either ends the run.
    """

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._request = wire_request(port, path=path)
        self._idle: list[socket.socket] = []
        self._waiting: dict[socket.socket, tuple[float, bytes]] = {}
        self.latencies_s: list[float] = []
        self.late_s: list[float] = []
        self.broken = 0

    def run(self, per_s: float, seconds: float) -> float:
        """Send until the time is over, then wait for what is under way. Returns the seconds of sending."""
        begun_at = time.perf_counter()
        due: deque[float] = deque()
        number, planned = 0, int(per_s * seconds)
        while (number < planned or due or self._waiting) and not self.broken:
            now = time.perf_counter()
            while number < planned and begun_at + number / per_s <= now:
                due.append(begun_at + number / per_s)
                self.late_s.append(now - due[-1])
                number += 1
            while due and (self._idle or len(self._waiting) < MOST_CONNECTIONS):
                self._send(due.popleft())
            wait_s = begun_at + number / per_s - time.perf_counter() if number < planned else 1.0
            for one in select.select(list(self._waiting), [], [], max(0.0, wait_s))[0]:
                self._read(one)
        return max(time.perf_counter() - begun_at, seconds)

    def warm(self, connections: int) -> None:
        """Open connections and make a call over each, uncounted."""
        for _ in range(connections):
            self._send(time.perf_counter())
        while self._waiting and not self.broken:
            for one in select.select(list(self._waiting), [], [], 5.0)[0]:
                self._read(one)
        self.latencies_s.clear()

    def close(self) -> None:
        for one in (*self._idle, *self._waiting):
            one.close()

    def _send(self, due_at: float) -> None:
        if self._idle:
            one = self._idle.pop()
        else:
            one = socket.create_connection(("127.0.0.1", self._port), timeout=5)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._waiting[one] = (due_at, b"")
        one.sendall(self._request)

    def _read(self, one: socket.socket) -> None:
        due_at, had = self._waiting[one]
        try:
            piece = one.recv(65536)
        except ConnectionError:  # reset: an end like any other
            piece = b""
        answer = had + piece
        if not piece:
            self.broken += 1
            del self._waiting[one]
            one.close()
        elif is_whole(answer):
            self.latencies_s.append(time.perf_counter() - due_at)
            self.broken += not answer.startswith(b"HTTP/1.1 200")
            del self._waiting[one]
            self._idle.append(one)
        else:
            self._waiting[one] = (due_at, answer)


def is_whole(answer: bytes) -> bool:
    """Has an answer with a Content-Length come completely? ValueError when its head states none."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    _, _, rest = answer[:end].lower().partition(LENGTH)
    return len(answer) >= end + 4 + int(rest.partition(b"\r\n")[0])


def measure(port: int, path: str, per_s: float, seconds: float) -> dict[str, Any]:
    """Calls, seconds, and the latencies and lateness of one run."""
    paced = Paced(port, path)
    try:
        paced.warm(8)
        own_before_s = time.process_time()
        took_s = paced.run(per_s, seconds)
        own_s = time.process_time() - own_before_s
    finally:
        paced.close()
    return {
        "requests": len(paced.latencies_s),
        "seconds": took_s,
        "broken": paced.broken,
        "generator_busy": own_s / took_s,
        "late_p99_ms": percentile(paced.late_s, 0.99) * 1000,
        "p50_ms": percentile(paced.latencies_s, 0.50) * 1000,
        "p99_ms": percentile(paced.latencies_s, 0.99) * 1000,
    }


if __name__ == "__main__":
    told = measure(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
    print(json.dumps(told))
