"""One upstream: where it is, what it is sent in place of the caller's credentials, how long it may take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from proxy.upstream import tls
from proxy.upstream.address import parse
from proxy.upstream.connection import Connection
from proxy.upstream.dial import dial
from proxy.upstream.headers import RequestHead
from proxy.upstream.pool import Pool


class Upstream:
    """A configured upstream and its connections. `relay` is its user.

    All spans are in seconds. Raises ValueError for a URL or credentials that cannot be used, OSError for an
    unreadable `ca`.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        credentials: Mapping[str, str] | None = None,
        private: Iterable[str] = (),
        connect_s: float = 5.0,
        first_byte_s: float = 120.0,
        idle_s: float = 60.0,
        idle_for_s: float = 4.0,
        ca: Path | None = None,
        verify: bool = True,
        max_connections: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`credentials` are headers that replace the caller's own; `private` names more of those.

        `connect_s` includes TLS; `first_byte_s` runs from the request sent to the head of the answer;
        `idle_s` between two pieces of a body, either way. An idle connection is kept for `idle_for_s`: the
        default stays below the 5 s of Node and uvicorn, the shortest keep-alive of common servers.
        """
        self.name = name
        self.connect_s = connect_s
        self.first_byte_s = first_byte_s
        self.idle_s = idle_s
        self._address = parse(url)
        self._context = tls.context(ca, verify=verify) if self._address.tls else None
        self.target = self._address.target
        self.head = RequestHead(self._address.authority, credentials or {}, private)
        self.pool = Pool(idle_for_s=idle_for_s, most=max_connections, clock=clock)

    def dial(self) -> asyncio.Task[Connection]:
        """Open a new connection. The task raises DialFailed; cancelled, it leaves nothing open."""
        self.pool.dial_begins()
        dialling = asyncio.create_task(dial(self._address, self._context, self._connection))
        dialling.add_done_callback(self.pool.dial_ends)
        return dialling

    async def aclose(self) -> None:
        """Close idle connections now and the others as their exchanges end; returns when all are closed."""
        await self.pool.aclose()

    def abort(self) -> None:
        """Cut every exchange that is still going on."""
        self.pool.abort()

    def __repr__(self) -> str:
        """The name and the counts."""
        return f"<Upstream {self.name}: {repr(self.pool)[6:-1]}>"

    def _connection(self) -> Connection:
        return Connection(self.pool, first_byte_s=self.first_byte_s, idle_s=self.idle_s)
