"""An upstream that says one refusal of ours itself, in a dialect's words, and passes on what is no work."""

from __future__ import annotations

import asyncio

import httpx

from proxy.core.verdict import Refusal
from proxy.dialects import dialect_named
from tests.kit.listening import Listening
from tests.kit.scripted import Heard, Peer

WORK = {"mcp": b'"tools/call"'}
"""What the body of a POST that is work holds; elsewhere every POST is work."""

HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host", "keep-alive"}


class Refusing(Listening):
    """Says `refusal` to every call that is work, exactly as the proxy would; `behind` answers the rest."""

    def __init__(self, refusal: Refusal, dialect: str, behind: str) -> None:
        super().__init__()
        self._refusal = refusal
        self._dialect = dialect_named(dialect)
        self._behind = behind

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, 0, [])
        async with httpx.AsyncClient() as client:
            while True:
                heard = await peer.request()
                await peer.send(self._refuse(heard) or await self._pass_on(client, heard))

    def _refuse(self, heard: Heard) -> bytes | None:
        if not heard.line.startswith(b"POST ") or WORK.get(self._dialect.name, b"") not in heard.body:
            return None
        answer = self._dialect.refuse(self._refusal, self._dialect.read(heard.body))
        return _framed(answer.status, answer.headers, answer.body)

    async def _pass_on(self, client: httpx.AsyncClient, heard: Heard) -> bytes:
        method, target, _ = heard.line.decode().split(" ", 2)
        headers = [(name.decode(), value.decode()) for name, value in heard.headers]
        answer = await client.request(
            method,
            self._behind + target,
            headers=[field for field in headers if field[0].lower() not in HOP_BY_HOP],
            content=heard.body,
        )
        kept = [field for field in answer.headers.raw if field[0].lower().decode() not in HOP_BY_HOP]
        return _framed(answer.status_code, kept, answer.content)


def _framed(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    lines = [b"HTTP/1.1 %d Said" % status, *(b"%b: %b" % field for field in headers)]
    return b"\r\n".join([*lines, b"content-length: %d" % len(body), b"", body])
