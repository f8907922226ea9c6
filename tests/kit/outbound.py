"""Outbound proxies on real sockets: HTTP (CONNECT and absolute-form) and SOCKS5.

async with Outbound() as proxy:
    ... proxy.url, proxy.socks_url, proxy.asked
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from tests.kit.listening import Listening
from tests.kit.waiting import bounded

REFUSED = b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n"


class Outbound(Listening):
    """Carries bytes to where it is asked; the first byte of a connection tells which of the two it speaks.

    `asked` holds what each connection asked for, `heads` the heads of the HTTP ones. With `refuses` it says
    no; with `hangs` it says nothing.
    """

    def __init__(self, *, refuses: bool = False, hangs: bool = False) -> None:
        super().__init__()
        self._refuses = refuses
        self._hangs = hangs
        self.asked: list[bytes] = []
        self.heads: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def socks_url(self) -> str:
        return f"socks5://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        await (self._socks(reader, writer) if first == b"\x05" else self._http(first, reader, writer))

    async def _http(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = first + await bounded(reader.readuntil(b"\r\n\r\n"))
        method, target, _ = head.split(b" ", 2)
        self.heads.append(head)
        self.asked.append(target)
        if self._hangs:
            await reader.read()
        elif self._refuses:
            writer.write(REFUSED)
            await reader.read()
        elif method == b"CONNECT":
            host, _, port = target.rpartition(b":")
            writer.write(b"HTTP/1.1 200 Go\r\n\r\n")
            await self._carry(host.decode(), int(port), b"", reader, writer)
        else:
            host, _, port = target.split(b"/")[2].rpartition(b":")
            await self._carry(host.decode(), int(port), head, reader, writer)

    async def _socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        methods = await reader.readexactly(1)
        await reader.readexactly(methods[0])
        writer.write(b"\x05\x00")
        await reader.readexactly(3)
        kind = await reader.readexactly(1)
        if kind == b"\x01":
            host = socket.inet_ntoa(await reader.readexactly(4))
        else:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append(f"{host}:{port}".encode())
        code = b"\x05" if self._refuses else b"\x00"
        writer.write(b"\x05" + code + b"\x00\x01" + bytes(6))
        if not self._refuses:
            await self._carry(host, port, b"", reader, writer)

    async def _carry(
        self,
        host: str,
        port: int,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, port, family=socket.AF_INET)
        far_writer.write(head)
        ways = [
            asyncio.create_task(_pump(reader, far_writer)),
            asyncio.create_task(_pump(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            far_writer.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
