"""A cheap upstream for comparisons: the same JSON for every request, on asyncio.Protocol and httptools."""

from __future__ import annotations

import asyncio
import sys
from typing import Final, cast

import httptools
import uvloop

# 300 bytes, the size of a short answer of a model.
ANSWER: Final = '{"id":"chatcmpl-0","object":"chat.completion","choices":[{"text":"' + "x" * 231 + '"}]}'
_RESPONSE: Final = (
    f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}\r\n\r\n{ANSWER}"
).encode()


class Origin(asyncio.Protocol):
    """One connection: answers each request once its body is complete."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods without the base class.
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_message_complete(self) -> None:
        self._transport.write(_RESPONSE)


async def serve(port: int) -> None:
    """Answer on the loopback interface until cancelled."""
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
