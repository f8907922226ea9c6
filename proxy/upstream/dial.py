"""Opening a connection: names, several addresses, TLS. Foreign errors become DialFailed here.

The name is looked up for every connection. Several addresses are tried as in RFC 8305 (Happy Eyeballs): the
next one starts a quarter of a second after the last, or when that failed, and the first to connect wins.
uvloop's own create_connection has no such option. An address that failed lately is tried last.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from itertools import chain, zip_longest
from typing import Final, TypeVar

from proxy.upstream import tls
from proxy.upstream.address import Address
from proxy.upstream.tls_transport import TlsTransport

STAGGER_S: Final = 0.25
"""RFC 8305 §5 recommends 250 ms."""

SHUNNED_S: Final = 10.0
"""An address that failed is tried after the others for this long: nginx's `fail_timeout`."""

P = TypeVar("P", bound=asyncio.Protocol)
Attempt = asyncio.Task[socket.socket]
Sockaddr = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


class DialFailed(Exception):
    """No connection. The message is for the log: it names no host."""


class Shunned:
    """The addresses of one upstream that failed lately. A name never has so few that none is left: they are
    only tried last, so that a dead one of several costs its quarter of a second once, not at each dial."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failed_at: dict[Sockaddr, float] = {}

    def last(self, candidates: list[Sockaddr]) -> list[Sockaddr]:
        """The candidates, those that failed lately behind the others, else in their order."""
        since = self._clock() - SHUNNED_S
        self._failed_at = {each: at for each, at in self._failed_at.items() if at > since}
        return sorted(candidates, key=self._failed_at.__contains__)

    def add(self, candidate: Sockaddr) -> None:
        """This one failed, or a later one was faster by all of its start."""
        self._failed_at[candidate] = self._clock()


async def dial(
    address: Address, context: ssl.SSLContext | None, protocol: Callable[[], P], shunned: Shunned
) -> P:
    """Open a connection and return its protocol. Takes as long as it takes: the caller keeps the time.

    Raises DialFailed. Cancelled, it leaves nothing open.
    """
    try:
        sock = await _first_of(shunned.last(await _resolve(address)), shunned)
        made = protocol()
        if context is None:
            await _carry(sock, made)
        else:
            await _carry_tls(sock, TlsTransport(context, address.host, made))
    except (OSError, UnicodeError) as error:
        raise DialFailed(words(error)) from None
    return made


async def _carry(sock: socket.socket, protocol: asyncio.Protocol) -> None:
    try:
        await asyncio.get_running_loop().create_connection(lambda: protocol, sock=sock)
    except asyncio.CancelledError:
        # uvloop 0.23 closes the transport then, and tells nothing of it to a protocol that it had told of the
        # connection: nobody would ever count it as closed.
        protocol.connection_lost(None)
        raise


async def _carry_tls(sock: socket.socket, transport: TlsTransport) -> None:
    await _carry(sock, transport)
    try:
        fault = await transport.ready
    except asyncio.CancelledError:
        transport.abort()
        raise
    if fault is not None:
        raise fault


def words(error: OSError | UnicodeError) -> str:
    """Why no connection came about, for the log, without the host's name."""
    if isinstance(error, ssl.SSLError):
        return tls.detail_of(error)
    if isinstance(error, socket.gaierror | UnicodeError):
        return "name not resolved"
    if error.errno is None or isinstance(error, ConnectionResetError):
        return "connection reset while it was opened"
    return os.strerror(error.errno).lower()


async def _resolve(address: Address) -> list[Sockaddr]:
    """The addresses of a host, the two families in turn (RFC 8305 §4)."""
    found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    candidates: list[Sockaddr] = [(family, sockaddr) for family, _, _, _, sockaddr in found]
    first = [candidate for candidate in candidates if candidate[0] == candidates[0][0]]
    second = [candidate for candidate in candidates if candidate[0] != candidates[0][0]]
    return [candidate for candidate in chain(*zip_longest(first, second)) if candidate is not None]


async def _first_of(candidates: list[Sockaddr], shunned: Shunned) -> socket.socket:
    """A socket connected to the first address that answers. Raises the last address's OSError.

    Those that were begun before the winner, and did not win, are shunned.
    """
    if len(candidates) == 1:
        return await _connect(candidates[0])
    attempts: list[Attempt] = []
    winner: Attempt | None = None
    try:
        for candidate in candidates:
            attempts.append(asyncio.create_task(_connect(candidate)))
            winner = await _winner(attempts, within_s=STAGGER_S)
            if winner is not None:
                break
        while winner is None and not all(attempt.done() for attempt in attempts):
            winner = await _winner(attempts, within_s=None)
    finally:
        await _close_losers(attempts, winner)
    for candidate, attempt in zip(candidates, attempts, strict=False):
        if attempt is winner:
            break
        shunned.add(candidate)
    return (winner or attempts[-1]).result()


async def _winner(attempts: list[Attempt], *, within_s: float | None) -> Attempt | None:
    """An attempt that succeeded, or None as soon as one has failed or the time is over."""
    running = [attempt for attempt in attempts if not attempt.done()]
    done, _ = await asyncio.wait(running, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    return next((attempt for attempt in done if attempt.exception() is None), None)


async def _close_losers(attempts: list[Attempt], winner: Attempt | None) -> None:
    losers = [attempt for attempt in attempts if attempt is not winner]
    for loser in losers:
        loser.cancel()
    for lost in await asyncio.gather(*losers, return_exceptions=True):
        if isinstance(lost, socket.socket):
            lost.close()


async def _connect(candidate: Sockaddr) -> socket.socket:
    family, sockaddr = candidate
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock
