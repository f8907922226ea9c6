"""Opening a connection: names, several addresses, TLS. Foreign errors become DialFailed here.

The name is looked up for every connection. Several addresses are tried as in RFC 8305 (Happy Eyeballs): the
next one starts a quarter of a second after the last, or when that failed, and the first to connect wins.
uvloop's own create_connection has no such option.
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

STAGGER_S: Final = 0.25
"""RFC 8305 §5 recommends 250 ms."""

P = TypeVar("P", bound=asyncio.Protocol)
Attempt = asyncio.Task[socket.socket]
Sockaddr = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


class DialFailed(Exception):
    """No connection. The message is for the log: it names no host."""


async def dial(address: Address, context: ssl.SSLContext | None, protocol: Callable[[], P]) -> P:
    """Open a connection and return its protocol. Takes as long as it takes: the caller keeps the time.

    Raises DialFailed. Cancelled, it leaves nothing open.
    """
    loop = asyncio.get_running_loop()
    try:
        sock = await _first_of(await _resolve(address))
        _, made = await loop.create_connection(
            protocol, sock=sock, ssl=context, server_hostname=address.host if context else None
        )
    except ssl.SSLError as error:
        raise DialFailed(tls.detail_of(error)) from None
    except (socket.gaierror, UnicodeError):
        raise DialFailed("name not resolved") from None
    except OSError as error:
        raise DialFailed(_words(error)) from None
    return made


def _words(error: OSError) -> str:
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


async def _first_of(candidates: list[Sockaddr]) -> socket.socket:
    """A socket connected to the first address that answers. Raises the last address's OSError."""
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
