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

from loadtests.raw_client import wire_request

MOST_CONNECTIONS: Final = 64
"""Twenty times the calls that are open at once in the comparison. More wait for a connection, and count from
when they were due: a pause of 20 ms would be followed by two hundred handshakes here, and as many at the
upstream, and they would be measured."""

LENGTH: Final = b"content-length:"


class Paced:
    """A run of calls over kept connections.

    `calls`: of each that was answered when it was due (`time.perf_counter`), how much later the generator
    noticed, and how long after it was due the answer was there. `broken` counts answers that were not 200 and
    connections that were ended; one of either ends the run.
    """

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._request = wire_request(port, path=path)
        self._idle: list[socket.socket] = []
        self._waiting: dict[socket.socket, tuple[float, float, bytes]] = {}
        self.calls: list[tuple[float, float, float]] = []
        self.broken = 0

    def run(self, per_s: float, seconds: float) -> float:
        """Send until the time is over, then wait for what is under way. Returns the seconds of sending."""
        begun_at = time.perf_counter()
        due: deque[tuple[float, float]] = deque()
        number, planned = 0, int(per_s * seconds)
        while (number < planned or due or self._waiting) and not self.broken:
            now = time.perf_counter()
            while number < planned and begun_at + number / per_s <= now:
                due_at = begun_at + number / per_s
                due.append((due_at, now - due_at))
                number += 1
            while due and (self._idle or len(self._waiting) < MOST_CONNECTIONS):
                self._send(*due.popleft())
            wait_s = begun_at + number / per_s - time.perf_counter() if number < planned else 1.0
            for one in select.select(list(self._waiting), [], [], max(0.0, wait_s))[0]:
                self._read(one)
        return max(time.perf_counter() - begun_at, seconds)

    def warm(self, connections: int) -> None:
        """Open connections and make a call over each, uncounted."""
        for _ in range(connections):
            self._send(time.perf_counter(), 0.0)
        while self._waiting and not self.broken:
            for one in select.select(list(self._waiting), [], [], 5.0)[0]:
                self._read(one)
        self.calls.clear()

    def close(self) -> None:
        for one in (*self._idle, *self._waiting):
            one.close()

    def _send(self, due_at: float, late_s: float) -> None:
        if self._idle:
            one = self._idle.pop()
        else:
            one = socket.create_connection(("127.0.0.1", self._port), timeout=5)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._waiting[one] = (due_at, late_s, b"")
        one.sendall(self._request)

    def _read(self, one: socket.socket) -> None:
        due_at, late_s, had = self._waiting[one]
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
            self.calls.append((due_at, late_s, time.perf_counter() - due_at))
            self.broken += not answer.startswith(b"HTTP/1.1 200")
            del self._waiting[one]
            self._idle.append(one)
        else:
            self._waiting[one] = (due_at, late_s, answer)


def is_whole(answer: bytes) -> bool:
    """Has an answer with a Content-Length come completely? ValueError when its head states none."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    _, _, rest = answer[:end].lower().partition(LENGTH)
    return len(answer) >= end + 4 + int(rest.partition(b"\r\n")[0])


def measure(port: int, path: str, per_s: float, seconds: float, warm: int = 8) -> dict[str, Any]:
    """The seconds and the calls of one run, after one call over each of so many connections."""
    paced = Paced(port, path)
    try:
        paced.warm(warm)
        own_before_s = time.process_time()
        took_s = paced.run(per_s, seconds)
        own_s = time.process_time() - own_before_s
    finally:
        paced.close()
    return {
        "seconds": took_s,
        "broken": paced.broken,
        "generator_busy": own_s / took_s,
        "calls": [[round(figure, 7) for figure in call] for call in paced.calls],
    }


if __name__ == "__main__":
    told = measure(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), MOST_CONNECTIONS)
    print(json.dumps(told))
