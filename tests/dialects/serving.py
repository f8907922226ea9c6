"""A real socket that gives our answers to a real client: one HTTP/1.1 answer per connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from proxy.dialects import Answer

Respond = Callable[[str, bytes], Answer]


@asynccontextmanager
async def serving(respond: Respond) -> AsyncIterator[str]:
    """Serve `respond(method, body)` on a free port; yields the base URL. Ends every connection it took."""
    tasks: set[asyncio.Task[None]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = next(
                (int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")),
                0,
            )
            answer = respond(head.split(" ", 1)[0], await reader.readexactly(length))
            writer.write(wire_bytes(answer))
            await writer.drain()
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def wire_bytes(answer: Answer) -> bytes:
    """The answer as HTTP/1.1 bytes, with the headers that the wire adds."""
    headers = [pair for pair in answer.headers if pair[0] != b"connection"]
    headers += [(b"content-length", b"%d" % len(answer.body)), (b"connection", b"close")]
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return b"HTTP/1.1 %d X\r\n" % answer.status + lines + b"\r\n" + answer.body
