"""One upstream: where it is, what it is sent in place of the caller's credentials, how long it may take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.upstream import outbound, tls
from proxy.upstream.address import parse
from proxy.upstream.connection import MOST_BUFFERED_BYTES, Connection
from proxy.upstream.dial import Shunned, dial
from proxy.upstream.ear import Ear
from proxy.upstream.headers import RequestHead
from proxy.upstream.limit_texts import LimitTexts
from proxy.upstream.patience import NEVER
from proxy.upstream.pool import Pool

if TYPE_CHECKING:
    from proxy.upstream.httpx_bridge import Bridge


class Upstream:
    """A configured upstream and its connections. `relay` is its user.

    All spans are in seconds. Raises ValueError for a URL, proxy or credentials that cannot be used, OSError
    for an unreadable PEM file. `bridge` is None, or carries the calls in place of our own connections.
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
        total_s: float | None = None,
        stream_buffer_bytes: int = MOST_BUFFERED_BYTES,
        idle_for_s: float = 4.0,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        verify: bool = True,
        http2: bool = False,
        proxy: str | None = None,
        trusted_hops: int = 0,
        max_connections: int | None = None,
        max_age_s: float = NEVER,
        listens: bool = False,
        limit_patterns: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`credentials` are headers that replace the caller's own; `private` names more of those.

        `connect_s` includes TLS; `first_byte_s` runs from the request sent to the head of the answer;
        `idle_s` between two pieces of a body, either way; `total_s` bounds the whole call (None: nothing
        does). `stream_buffer_bytes` is held of a body before its sender is not read any more. An idle
        connection is kept for `idle_for_s`: the default stays below the 5 s of Node and uvicorn, the shortest
        keep-alive of common servers. No connection older than `max_age_s` is used again, and no more than
        `max_connections` are open. With `listens` it is heard what it says of its own allowances;
        an answer in which one of `limit_patterns` is found says as much as a 429 (`limit_texts.py`).

        With `http2`, or with a `proxy` (its URL, or `env`: what the environment says for this upstream),
        httpx carries the calls.
        """
        self.name = name
        self.connect_s = connect_s
        self.first_byte_s = first_byte_s
        self.idle_s = idle_s
        self.total_s = total_s
        self._stream_buffer_bytes = stream_buffer_bytes
        self._address = parse(url)
        self._files = tls.Files(ca, cert, key)
        self._context = tls.context(ca, cert=cert, key=key, verify=verify) if self._address.tls else None
        self.target = self._address.target
        self.head = RequestHead(
            self._address.authority, credentials or {}, private, trusted_hops=trusted_hops
        )
        self._shunned = Shunned(clock)
        self.pool: Pool[Any] = Pool(
            idle_for_s=idle_for_s, max_age_s=max_age_s, most=max_connections, clock=clock
        )
        self.ear = Ear() if listens else None
        self.texts = LimitTexts(limit_patterns) if limit_patterns else None
        self.has_credentials = bool(credentials)
        self.bridge: Bridge | None = None
        way = outbound.way_to(self._address, proxy)
        if http2 or way is not None:
            # Time to start and memory that most can do without.
            from proxy.upstream.httpx_bridge import Bridge  # noqa: PLC0415

            self.bridge = Bridge(self, self._address, self._context, http2=http2, proxy=way)

    @property
    def is_current(self) -> bool:
        """Do its PEM files still hold what they held? A certificate is often renewed under the same name."""
        return not self._files.changed

    def dial(self) -> asyncio.Task[Connection]:
        """Open a new connection, or wait for one where no other may be opened.

        The task raises DialFailed; cancelled, it leaves nothing open.
        """
        if self.pool.full:
            return asyncio.create_task(self._wait_for_room())
        self.pool.dial_begins()
        dialling = asyncio.create_task(self._dial())
        dialling.add_done_callback(self.pool.dial_ends)
        return dialling

    async def _wait_for_room(self) -> Connection:
        freed: Connection | None = await self.pool.room()
        if freed is not None:
            return freed
        self.pool.dial_begins()
        try:
            return await self._dial()
        finally:
            self.pool.dial_ends()

    async def _dial(self) -> Connection:
        return await dial(self._address, self._context, self._connection, self._shunned)

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
        return Connection(
            self.pool,
            first_byte_s=self.first_byte_s,
            idle_s=self.idle_s,
            most_buffered=self._stream_buffer_bytes,
        )
