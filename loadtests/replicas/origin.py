"""An upstream of unlimited room that writes down when each call came and when it was done.

    python -m loadtests.replicas.origin PORT SERVICE_S

A call that has begun is worked on to its end, whoever still listens. GET /ledger: every call so far;
POST /status/503: answer that, at once, from now on; POST /status/200: as before.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from typing import Any

import uvloop

from loadtests.origin import RESPONSE, ByName

REFUSED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\ndown"


class Ledger:
    """Calls as [id, begun_at, ended_at, status], by monotonic time; `ended_at` is 0 while one runs."""

    def __init__(self, service_s: float) -> None:
        self.service_s = service_s
        self.status = 200
        self.calls: list[list[Any]] = []


class Connection(ByName):
    """One connection: a call begins when its body is complete."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def on_message_complete(self) -> None:
        ledger = self._ledger
        if self._url == "/ledger":
            self.tell(ledger.calls)
        elif self._url.startswith("/status/"):
            ledger.status = int(self._url.rpartition("/")[2])
            self._transport.write(RESPONSE)
        else:
            call = [self._call, time.monotonic(), 0.0, ledger.status]
            ledger.calls.append(call)
            if ledger.status == 200:
                asyncio.get_running_loop().call_later(ledger.service_s, self._answer, call)
            else:
                call[2] = call[1]
                self._transport.write(REFUSED)

    def _answer(self, call: list[Any]) -> None:
        call[2] = time.monotonic()
        self._transport.write(RESPONSE)


async def serve(port: int, service_s: float) -> None:
    """Answer on the loopback interface until cancelled."""
    ledger = Ledger(service_s)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(ledger), "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    gc.disable()  # the run is short, and a collection would show as lateness
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2])))
