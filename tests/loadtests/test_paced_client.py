"""The open-loop generator: calls come when they are due, and their latency counts from then."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loadtests.compare.latency import why_void
from loadtests.origin import ANSWER
from loadtests.paced_client import Paced, is_whole, measure
from loadtests.raw_client import PATH, wire_request

OK = f"HTTP/1.1 200 OK\r\nContent-Length: {len(ANSWER)}\r\n\r\n{ANSWER}".encode()


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
        ({"left_out": 0.6}, "the machine hindered 60% of the calls"),
        ({"requests": 5001, "seconds": 5.0, "left_out": 0.6}, ""),
    ],
)
def test_a_paced_run_says_why_it_proves_nothing(own: dict[str, float], said: str) -> None:
    good = {"requests": 1000, "seconds": 1.0, "late_p99_ms": 0.1, "left_out": 0.01}
    assert why_void(1000.0, good | own) == said
