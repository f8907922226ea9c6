"""A cheap upstream for comparisons: the same JSON for every request, on asyncio.Protocol and httptools.

python -m loadtests.origin PORT [CERTIFICATE.pem KEY.pem]
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Final, cast

import httptools
import uvloop

# 300 bytes, the size of a short answer of a model; as a whole one, for LiteLLM reads it.
ANSWER: Final = (
    '{"id":"chatcmpl-0","object":"chat.completion","created":1,"model":"demo-model","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"' + "x" * 58 + '"},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":240,"completion_tokens":16,"total_tokens":256}}'
)
RESPONSE: Final = (
    f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}\r\n\r\n{ANSWER}"
).encode()

CALL: Final = b"x-call-id"
"""The header in which a generator names its calls."""


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
        self._transport.write(RESPONSE)


class ByName(Origin):
    """One connection of an upstream that tells calls apart: `_call` is its name, `_url` what it asks for."""

    _call = _url = ""

    def on_message_begin(self) -> None:
        self._call = self._url = ""

    def on_url(self, url: bytes) -> None:
        self._url += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == CALL:
            self._call = value.decode("latin-1")

    def tell(self, what: object) -> None:
        """Answer with what is known, as JSON."""
        body = json.dumps(what).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


async def serve(port: int, tls: ssl.SSLContext | None) -> None:
    """Answer on the loopback interface until cancelled."""
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", port, ssl=tls)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    context = None
    if len(sys.argv) > 2:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[2], sys.argv[3])
    uvloop.run(serve(int(sys.argv[1]), context))
