"""A real socket that gives our answers to a real client: one HTTP/1.1 answer per connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from proxy.dialects import Answer
from tests.kit.scripted import Peer, Scripted

Respond = Callable[[str, bytes], Answer]


@asynccontextmanager
async def serving(respond: Respond) -> AsyncIterator[str]:
    """Serve `respond(method, body)` on a free port; yields the base URL. Ends every connection it took."""

    async def script(peer: Peer) -> None:
        heard = await peer.request()
        method = heard.line.split(b" ", 1)[0].decode()
        await peer.send(wire_bytes(respond(method, heard.body)))

    async with Scripted(script) as scripted:
        yield f"http://127.0.0.1:{scripted.port}"


def wire_bytes(answer: Answer) -> bytes:
    """The answer as HTTP/1.1 bytes, with the headers that the wire adds."""
    headers = [pair for pair in answer.headers if pair[0] != b"connection"]
    headers += [(b"content-length", b"%d" % len(answer.body)), (b"connection", b"close")]
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return b"HTTP/1.1 %d X\r\n" % answer.status + lines + b"\r\n" + answer.body
