"""A server's side of TLS of which a test sends every byte itself: in pieces, late, altered, or not at all."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

from tests.kit.scripted import Peer
from tests.kit.waiting import bounded


class ByHand:
    """What is to be sent is returned, encrypted; what has arrived is given to `shake`, later to `hear`.

    `tickets` are the session tickets of TLS 1.3, which the end of the handshake brings forth: they go before
    whatever is said, for records are numbered.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.shaken = False
        self.tickets = b""

    def shake(self, data: bytes) -> bytes:
        """Go on with the handshake, until `shaken`."""
        self._incoming.write(data)
        with suppress(ssl.SSLWantReadError):
            self.ssl.do_handshake()
            self.shaken = True
        said = self._outgoing.read()
        if self.shaken and self.ssl.version() == "TLSv1.3":
            self.tickets, said = said, b""
        return said

    def hear(self, data: bytes) -> bytes:
        """Decrypt. Nothing comes of their close_notify."""
        self._incoming.write(data)
        heard = b""
        with suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while piece := self.ssl.read(65536):
                heard += piece
        return heard

    def say(self, data: bytes) -> bytes:
        """Encrypt, in records of 16 KiB at most."""
        self.ssl.write(data)
        return self._outgoing.read()

    def farewell(self) -> bytes:
        """close_notify."""
        with suppress(ssl.SSLWantReadError):
            self.ssl.unwrap()
        return self._outgoing.read()


async def accept(peer: Peer, context: ssl.SSLContext) -> ByHand:
    """Shake hands over a real connection, and hear a short request. The tickets go before the answer."""
    far = ByHand(context)
    while not far.shaken:
        await peer.send(far.shake(await _some(peer)))
    heard = far.hear(b"")
    while b"\r\n\r\n" not in heard:
        heard += far.hear(await _some(peer))
    return far


async def _some(peer: Peer) -> bytes:
    data = await bounded(peer.reader.read(65536))
    if not data:
        raise asyncio.IncompleteReadError(data, None)
    return data
