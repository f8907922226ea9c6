"""Ports that are free, and ports on which something is wrong."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from loadtests.running import reserve

ANY_PORTS = "listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\n"
"""The top of a configuration: listen on ports that the system chooses."""

RESERVED = range(11000, 21000)
BUS = 10000
"""Ports below those the system chooses; a Redis of a cluster takes the one this far above, too."""


_HELD: list[socket.socket] = []


def dead_port() -> int:
    """A port on which nobody listens, nor will while these tests run: a connection is refused."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    _HELD.append(sock)  # bound, so that nobody else is given it
    return int(sock.getsockname()[1])


@contextmanager
def stuck_port() -> Iterator[int]:
    """A port whose backlog is full: the kernel drops further handshakes, so a connection never opens."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = int(full.getsockname()[1])
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port


def reserved_port() -> socket.socket:
    """A port for a server in a process of its own, ours until the socket is closed, whichever server ends.

    It lies where the system gives out none, and nobody listens on it.
    """
    held = reserve(RESERVED, BUS)
    assert held is not None, "no port is free"
    return held
