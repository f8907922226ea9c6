"""The open-loop generator: calls come when they are due, and their latency counts from then."""

from __future__ import annotations

import os
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loadtests.compare.latency import summed_up, why_void
from loadtests.origin import ANSWER
from loadtests.paced_client import Paced, is_whole, measure
from loadtests.raw_client import PATH, wire_request
from loadtests.stalls import Stalls, cores_of, untouched

OK = f"HTTP/1.1 200 OK\r\nContent-Length: {len(ANSWER)}\r\n\r\n{ANSWER}".encode()


class Clock:
    """Tells these times, one after the other, and then the last of them again and again."""

    def __init__(self, *times: float) -> None:
        self._times = list(times)
        self.at_its_end = threading.Event()

    def perf_counter(self) -> float:
        if len(self._times) > 1:
            return self._times.pop(0)
        self.at_its_end.set()
        return self._times[0]

    def sleep(self, seconds: float) -> None:
        """The next time told is that of waking."""


RESET = b"reset"
REFUSED = b"HTTP/1.1 429 No\r\ncontent-length: 0\r\n\r\n"


class Connection(socketserver.BaseRequestHandler):
    """Answers every request whole, or says what the server was told to and ends the connection."""

    def handle(self) -> None:
        said = self.server.said
        while self._takes_one_request():
            if said == RESET:
                self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.request.close()
                return
            self.request.sendall(said or OK)
            if said and said != REFUSED:  # whole, so the connection stays
                return

    def _takes_one_request(self) -> bool:
        missing = len(wire_request(self.server.server_address[1], path=PATH))
        while missing:
            piece = self.request.recv(missing)
            if not piece:
                return False
            missing -= len(piece)
        return True


@contextmanager
def origin(said: bytes | None = None) -> Iterator[int]:
    """An upstream in threads, for the generator is no coroutine."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as server:
        server.said = said
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(10)


def test_it_makes_every_call_that_is_due_and_no_other() -> None:
    with origin() as port:
        told = measure(port, PATH, 200.0, 0.25)
    assert (len(told["calls"]), told["broken"]) == (50, 0)
    assert told["seconds"] >= 0.25
    due = [due_at for due_at, _, _ in told["calls"]]
    assert sorted(due) == pytest.approx([min(due) + number / 200 for number in range(50)], abs=1e-5)
    assert all(0 <= late_s < took_s for _, late_s, took_s in told["calls"])


def test_a_call_that_had_to_wait_for_a_connection_counts_from_when_it_was_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadtests.paced_client.MOST_CONNECTIONS", 1)
    with origin() as port:
        paced = Paced(port, PATH)
        try:
            # All due within a microsecond, one connection: each waits for all before it.
            paced.run(1e8, 40 / 1e8)
        finally:
            paced.close()
    took_s = [each for _, _, each in paced.calls]
    assert len(took_s) == 40
    assert took_s == sorted(took_s)


@pytest.mark.parametrize("said", [RESET, REFUSED, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"])
def test_anything_but_a_whole_good_answer_breaks_the_run(said: bytes) -> None:
    with origin(said) as port:
        assert measure(port, PATH, 100.0, 5.0)["broken"]


def test_an_answer_is_whole_at_its_last_byte() -> None:
    assert is_whole(OK)
    assert [cut for cut in range(len(OK)) if is_whole(OK[:cut])] == []
    with pytest.raises(ValueError, match="invalid literal"):
        is_whole(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({}, ""),
        ({"requests": 980}, "98.0% of the rate was kept"),
        ({"late_p99_ms": 0.8}, "the generator was late: p99 0.80 ms"),
        ({"left_out": 0.3}, "the machine stood still: 30% of the calls left out"),
    ],
)
def test_a_paced_run_says_why_it_proves_nothing(own: dict[str, float], said: str) -> None:
    good = {"requests": 1000, "seconds": 1.0, "late_p99_ms": 0.1, "left_out": 0.01}
    assert why_void(1000.0, good | own) == said


def test_the_calls_of_a_stall_and_of_its_backlog_are_left_out_and_told() -> None:
    calls = [(at / 10, 0.0, 0.05) for at in range(100)]  # from 0.0 to 9.9
    calls[39:41] = [(3.9, 0.0, 1.0), (4.0, 0.5, 1.0)]
    stalls = [(4.5, 5.0), (4.52, 4.9), (8.0, 8.01)]  # of two cores, in any order
    left = untouched(calls, stalls)
    kept = [*range(39), *range(41, 45), *range(56, 80), *range(81, 100)]
    assert [round(at * 10) for at, _, _ in left] == kept
    told = summed_up({"calls": calls, "seconds": 10.0}, stalls)
    assert told["p99_ms"] == pytest.approx(50.0)
    assert told["p99_with_stalls_ms"] == pytest.approx(1000.0)
    assert told["left_out"] == pytest.approx(0.14)
    assert summed_up({"calls": calls, "seconds": 10.0}, [])["left_out"] == 0.0


def test_a_watched_core_stands_still_while_the_watch_is_kept_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(0.0, 0.0012, 1.0, 1.0111, 2.0, 2.001)
    monkeypatch.setattr("loadtests.stalls.time", clock)
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: None)
    with Stalls([0]) as watch:
        assert clock.at_its_end.wait(10)
    assert watch.seen == [(1.0, 1.0111)]


def test_a_watch_that_must_wait_its_turn_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with Stalls([0]) as watch:
        pass
    assert watch.blind
    assert not watch.seen


def test_a_list_of_cores_is_read_as_taskset_reads_it() -> None:
    assert cores_of("0", "2-4,6") == [0, 2, 3, 4, 6]
    assert cores_of(None, None) == []
