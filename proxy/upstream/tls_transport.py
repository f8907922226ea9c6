"""TLS over a plain TCP connection: OpenSSL between two buffers, whose bytes the event loop carries.

The TLS of uvloop and of asyncio takes the bare end of TCP for a good end. uvloop's also holds more memory:
41 KiB a connection against 29, after long answers 580 against 290. It takes 1 % more instructions a call: of
the 26,000 that TLS adds to one here, 15,000 are OpenSSL's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, cast

RECORD_BYTES: Final = 16 * 1024
"""What one record carries at most (RFC 8446 §5.1), and so all that one read of OpenSSL ever returns: whatever
is left then is still encrypted, and stands in `_incoming`."""

SLICE_BYTES: Final = 64 * 1024
"""Encrypted at a time: a MemoryBIO keeps the size it once grew to for as long as it lives."""


class TlsTransport(asyncio.Protocol):
    """The protocol of a TCP transport, and in its turn the transport of the protocol `above`.

    Has of asyncio.Transport what a Connection calls; as with uvloop's own, nothing may be written once
    `is_closing`. `above` is told of its connection when the handshake is done, and of its loss only then.
    A connection that ends without close_notify is lost with an error, never `eof_received`.

    `ready` says how the handshake ended: None, or the ssl.SSLError or OSError that it failed with.
    """

    __slots__ = (
        "_above", "_backlog", "_decrypt", "_encrypt", "_fault", "_incoming", "_open", "_outgoing", "_paused",
        "_ssl", "_tcp", "_tcp_paused", "ready",
    )  # fmt: skip

    def __init__(self, context: ssl.SSLContext, hostname: str, above: asyncio.Protocol) -> None:
        """`hostname` is who the upstream must prove to be, as `context` would have it."""
        self._above = above
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        self._decrypt: Callable[[int], bytes] = self._ssl.read
        self._encrypt: Callable[[bytes | memoryview], int] = self._ssl.write
        self._tcp = cast("asyncio.Transport", None)  # until connection_made
        self._tcp_paused = False
        self._paused = False  # `above` was told to write no more
        self._backlog: list[bytes | memoryview] = []  # what OpenSSL does not take before it has read
        self._open = False
        self._fault: Exception | None = None
        self.ready: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    # ── what the TCP transport says ─────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast("asyncio.Transport", transport)
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if self._open:
            self._read()
        else:
            self._shake_hands()

    def eof_received(self) -> None:
        """The end of TCP alone: anybody on the way can forge that to cut an answer short (RFC 9112 §9.8)."""
        self._lose(ConnectionResetError("ended without close_notify"))

    def connection_lost(self, exc: Exception | None) -> None:
        fault, self._fault = exc or self._fault, None
        if self._open:
            self._open = False
            self._above.connection_lost(fault)
        elif not self.ready.done():
            self.ready.set_result(fault or ConnectionResetError())
        self._above = cast("asyncio.Protocol", None)  # which holds this object: nothing is left to collect

    def pause_writing(self) -> None:
        self._tcp_paused = True
        self._tell()

    def resume_writing(self) -> None:
        self._tcp_paused = False
        self._tell()

    # ── what the protocol above calls ───────────────────────────────────────────────────────────────

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt and send."""
        if len(data) > SLICE_BYTES or self._backlog:
            self.writelines((data,))
            return
        try:
            self._encrypt(data)
        except ssl.SSLWantReadError:
            self._backlog = [data]
            self._tell()
        except ssl.SSLError as error:
            self._lose(error)
            return
        self._tcp.write(self._outgoing.read())

    def writelines(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Encrypt and send, all in one write of the TCP transport."""
        slices = [part for piece in pieces for part in _slices(piece)]
        if self._backlog:
            self._backlog += slices
        else:
            self._send(slices)

    def close(self) -> None:
        """Send what was written, and our close_notify; theirs is not waited for (RFC 8446 §6.1)."""
        if self._tcp.is_closing():
            return
        with suppress(ssl.SSLError):  # it would read theirs, or can say nothing any more
            self._ssl.unwrap()
        self._tcp.write(self._outgoing.read())
        self._tcp.close()

    def abort(self) -> None:
        """Close at once, whatever is still to be sent."""
        self._tcp.abort()

    def is_closing(self) -> bool:
        """Lost, or about to be."""
        return self._tcp.is_closing()

    def pause_reading(self) -> None:
        """Read no more. What was read is handed over already, but for the beginning of a record."""
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._tcp.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has not taken."""
        return self._tcp.get_write_buffer_size() + sum(map(len, self._backlog))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Those of the TCP transport: it is encrypted bytes that count."""
        self._tcp.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """That of the TCP transport."""
        return self._tcp.get_extra_info(name, default)

    # ── OpenSSL ─────────────────────────────────────────────────────────────────────────────────────

    def _shake_hands(self) -> None:
        if self.ready.done():
            return  # it failed, or nobody waits for it any more
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._tcp.write(self._outgoing.read())
            return
        except ssl.SSLError as error:
            self._lose(error)
            return
        self._tcp.write(self._outgoing.read())
        self._open = True
        self._above.connection_made(cast("asyncio.BaseTransport", self))
        self.ready.set_result(None)
        if self._incoming.pending:
            self._read()

    def _read(self) -> None:
        """Hand over all that has arrived, in one piece, and then the end if it has."""
        pieces: list[bytes] = []
        ended = False
        fault: ssl.SSLError | None = None
        incoming = self._incoming
        try:
            while incoming.pending and not ended:  # a read with nothing to read raises, and that is dear
                piece = self._decrypt(RECORD_BYTES)
                pieces.append(piece)
                ended = not piece
        except ssl.SSLWantReadError:
            pass  # half a record, or one for OpenSSL alone: a session ticket, a new key
        except ssl.SSLError as error:
            fault = error
        if self._outgoing.pending:
            self._tcp.write(self._outgoing.read())
        if self._backlog:
            self._send(self._backlog)
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if data:
            self._above.data_received(data)
        if fault is not None:
            self._lose(fault)
        elif ended and not self._tcp.is_closing():
            self._above.eof_received()
            self.close()

    def _send(self, slices: list[bytes | memoryview]) -> None:
        """Encrypt and send. While the upstream negotiates anew (TLS 1.2) OpenSSL takes nothing: it may have
        begun with a slice by then, and goes on when it is given the same once more."""
        self._backlog = slices
        encrypted: list[bytes] = []
        try:
            while slices:
                self._encrypt(slices[0])
                del slices[0]
                encrypted.append(self._outgoing.read())
        except ssl.SSLWantReadError:
            encrypted.append(self._outgoing.read())
        except ssl.SSLError as error:
            self._lose(error)
            return
        self._tcp.writelines(encrypted)
        self._tell()

    def _tell(self) -> None:
        """Let `above` write, or not, as TCP and OpenSSL take it."""
        paused = self._tcp_paused or len(self._backlog) > 0
        if paused == self._paused:
            return
        self._paused = paused
        if paused:
            self._above.pause_writing()
        else:
            self._above.resume_writing()

    def _lose(self, fault: Exception) -> None:
        """Cut the connection, and have that fault told. OpenSSL's alert tells the upstream."""
        if self._tcp.is_closing():
            return
        self._fault = fault
        self._tcp.write(self._outgoing.read())
        if not self.ready.done():
            self.ready.set_result(fault)
        self._tcp.abort()


def _slices(data: bytes | memoryview) -> list[bytes | memoryview]:
    if len(data) <= SLICE_BYTES:
        return [data]
    view = memoryview(data)
    return [view[at : at + SLICE_BYTES] for at in range(0, len(data), SLICE_BYTES)]
