"""A relay that writes down each request and what was answered, and changes no byte of them.

    async with Recording("http://127.0.0.1:8080") as seen:
        ... a client calls seen.url ...
        seen.exchanges

Who stands behind it may change: `turn_to` is what a load balancer does when an instance leaves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httptools

from tests.kit.listening import Listening

CHUNK_BYTES = 64 * 1024

Hook = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request and its answer. Times are monotonic seconds: of the first byte in, of the last byte out."""

    asked_at: float
    method: str = ""
    target: str = ""
    request: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    answered_at: float = 0.0

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class _Requests:
    """Reads one connection's requests for their exchanges."""

    def __init__(self, begun: Callable[[Exchange], None]) -> None:
        self._begun = begun
        self.parser = httptools.HttpRequestParser(self)
        self._now = Exchange(0.0)

    def on_message_begin(self) -> None:
        self._now = Exchange(time.monotonic())

    def on_url(self, url: bytes) -> None:
        self._now.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._now.request[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._now.method = self.parser.get_method().decode()
        self._begun(self._now)

    def on_body(self, body: bytes) -> None:
        self._now.body += body


class _Answers:
    """Reads the answers of the same connection, in the order of its requests."""

    def __init__(self, open_exchanges: list[Exchange]) -> None:
        self._open = open_exchanges
        self._ended: list[Exchange] = []
        self.parser = httptools.HttpResponseParser(self)

    def feed(self, chunk: bytes) -> list[Exchange]:
        """The exchanges that end with this part of the answers."""
        bare = self._open and self._open[0].method == "HEAD"
        self.parser.feed_data(chunk)
        if bare:  # its Content-Length is that of a body which does not come
            self.parser = httptools.HttpResponseParser(self)
            self.on_message_complete()
        ended, self._ended = self._ended, []
        return ended

    def on_header(self, name: bytes, value: bytes) -> None:
        self._open[0].headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._open[0].status = self.parser.get_status_code()

    def on_message_complete(self) -> None:
        if self._open:
            exchange = self._open.pop(0)
            self._ended.append(exchange)


class Recording(Listening):
    """Relays every connection to where it is turned to at that time.

    Two hooks may be assigned. `asked` is awaited with each exchange when the head of its request is here and
    before it goes on; `answered` when its answer is complete and before its last bytes go on. What they
    change behind the relay has happened when either side reads on.
    """

    def __init__(self, behind: str) -> None:
        super().__init__()
        self.exchanges: list[Exchange] = []
        self.asked: Hook = _unmoved
        self.answered: Hook = _unmoved
        self.turn_to(behind)

    def turn_to(self, behind: str) -> None:
        """From the next connection on, relay to this base URL."""
        parts = urlsplit(behind)
        self._behind = (parts.hostname, parts.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._behind)
        open_exchanges: list[Exchange] = []

        begun: list[Exchange] = []

        requests, answers = _Requests(begun.append).parser, _Answers(open_exchanges)

        async def asked(chunk: bytes) -> None:
            requests.feed_data(chunk)
            self.exchanges += begun
            open_exchanges.extend(begun)
            while begun:
                await self.asked(begun.pop(0))

        async def answered(chunk: bytes) -> None:
            for exchange in answers.feed(chunk):
                await self.answered(exchange)
                exchange.answered_at = time.monotonic()

        up = asyncio.create_task(_carry(reader, far_writer, asked))
        down = asyncio.create_task(_carry(far_reader, writer, answered))
        try:
            # Either side's end is the end of both: nobody here closes half of a connection.
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, down):
                task.cancel()
            far_writer.close()
            for result in await asyncio.gather(up, down, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, ConnectionError):
                    raise result


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], Awaitable[None]]
) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        await look(chunk)
        writer.write(chunk)
        await writer.drain()


async def _unmoved(_: Exchange) -> None:
    """An answer goes on."""
