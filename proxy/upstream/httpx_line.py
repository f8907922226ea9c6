"""One connection of httpx's, as the pool wants it. All that knows httpx is in this file.

httpx gives up a cancelled HTTP/2 stream without telling the upstream, ends every stream of a connection when
one of them fails, and lets a stream wait for another's reader. So each line has a transport of its own, and
carries one exchange at a time, as in nginx's grpc_pass: whoever leaves closes a connection that is his alone.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import httpx
from h2.events import StreamReset
from h2.exceptions import H2Error

from proxy.upstream import tls
from proxy.upstream.address import Address
from proxy.upstream.answer import MOST_HEAD_BYTES
from proxy.upstream.contract import Headers, UnsendableRequest
from proxy.upstream.dial import words
from proxy.upstream.headers import HOP_BY_HOP, check_field, options_of

if TYPE_CHECKING:
    from proxy.upstream.pool import Pool

ONE: Final = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None)
NOT_OURS: Final = HOP_BY_HOP | {b"connection"}


class Broken(Exception):
    """No answer, or no more of it. The message is for the log: it names no host.

    `lost`: the connection ended, and nothing that arrived was wrong.
    """

    def __init__(self, detail: str, *, lost: bool = False) -> None:
        super().__init__(detail)
        self.lost = lost


class Watcher(Protocol):
    """Who is told how far a request is. What it raises ends the exchange."""

    def connected(self) -> None:
        """There is a connection, and the head is sent next."""
        ...

    def sent(self) -> None:
        """All of the request is sent."""
        ...


class ExactUrl(httpx.URL):
    """Where a line leads, with the target as it is to be sent: httpx would tidy it up.

    (Its extension `target` is put in place of the host in the CONNECT to an outbound proxy, too.)
    """

    def __init__(self, base: httpx.URL, target: bytes) -> None:
        super().__init__(base)
        self._target = target

    @property
    def raw_path(self) -> bytes:
        """Path and query."""
        return self._target


class Opening:
    """How the lines to one upstream are opened."""

    def __init__(
        self, address: Address, context: ssl.SSLContext | None, *, http2: bool, proxy: str | None
    ) -> None:
        """Without TLS there is no agreement on a protocol: `http2` then is spoken at once (RFC 9113 §3.3)."""
        shown = f"[{address.host}]" if ":" in address.host else address.host
        self.url = httpx.URL(f"{'https' if address.tls else 'http'}://{shown}:{address.port}/")
        self._context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # else httpx makes one, and slowly
        self._http1 = address.tls or not http2
        self._http2 = http2
        self._proxy = proxy and httpx.Proxy(
            proxy, ssl_context=tls.context() if proxy.startswith("https:") else None
        )

    def transport(self) -> httpx.AsyncHTTPTransport:
        """For one connection; it is opened with the first request."""
        return httpx.AsyncHTTPTransport(
            verify=self._context,
            http1=self._http1,
            http2=self._http2,
            proxy=self._proxy or None,
            limits=ONE,
            trust_env=False,
        )


class LineAnswer:
    """The head of an answer, and its body as it arrives.

    `headers` are those for the caller, as `Answer.headers`; `pieces` raises Broken.
    """

    def __init__(self, status: int, headers: Headers, pieces: AsyncGenerator[bytes, None]) -> None:
        self.status = status
        self.headers = headers
        self.pieces = pieces


class Line:
    """One connection, or the attempt at one. It leaves the pool when it is closed."""

    def __init__(self, pool: Pool[Line], opening: Opening) -> None:
        self._pool = pool
        self._url = opening.url
        self._transport = opening.transport()
        self._socket: Any = None  # httpcore's stream of the connection's bytes, below TLS
        self._is_open = False
        self._closing: asyncio.Task[None] | None = None
        self.idle_since = 0.0
        self.reused = False
        self.cut: Callable[[], None] | None = None
        """Ends the exchange that is going on."""
        pool.dial_begins()

    async def send(
        self, method: bytes, target: bytes, fields: Headers, body: httpx.AsyncByteStream, watcher: Watcher
    ) -> LineAnswer:
        """Send a request and return the head of its answer. Raises Broken, and whatever `body` raises."""

        async def trace(event: str, about: dict[str, Any]) -> None:
            request = about.get("request")
            if event.endswith("connect_tcp.complete"):
                self._socket = about["return_value"]
                self.reused = False
            elif request is None or request.method == b"CONNECT":
                return  # that is for the outbound proxy
            elif event.endswith("send_request_headers.started"):
                self._opened()
                watcher.connected()
            elif event.endswith("receive_response_headers.started"):
                watcher.sent()

        request = httpx.Request(
            method.decode(),
            self._url,
            headers=fields,
            stream=body,
            extensions={"trace": trace, "timeout": {}},
        )
        request.url = ExactUrl(self._url, target)
        with _translated():
            response = await self._transport.handle_async_request(request)
        headers = fields_for_caller(response.status_code, response.headers.raw)
        return LineAnswer(response.status_code, headers, _pieces(response))

    @property
    def reusable(self) -> bool:
        """Is the connection still open after its answer, and has nothing arrived beyond that?

        httpx would take that for the answer to the next request, and offers no look at it. Should its inner
        life change, no connection is kept any more.
        """
        try:
            connection: Any = self._transport._pool.connections[0]  # noqa: SLF001 - see above
            while not hasattr(connection, "_h11_state"):
                if hasattr(connection, "_h2_state"):
                    return True  # frames name the stream they belong to
                connection = connection._connection  # noqa: SLF001
            return not connection._h11_state.trailing_data[0]  # noqa: SLF001
        except (AttributeError, IndexError):
            return False

    @property
    def closing(self) -> bool:
        """Lost, or about to be."""
        return self._closing is not None

    def readable(self) -> bool:
        """Has something arrived while it was idle? Its end, or at best a PING."""
        return bool(self._socket.get_extra_info("is_readable"))

    def close(self) -> None:
        """Close it; `closed` waits for that."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())

    async def closed(self) -> None:
        """Close it, and wait until it is."""
        self.close()
        if self._closing is not None:
            await asyncio.shield(self._closing)

    def abort(self) -> None:
        """End the exchange that is going on, or close."""
        if self.cut is not None:
            self.cut()
        else:
            self.close()

    def _opened(self) -> None:
        if not self._is_open:
            self._is_open = True
            self._pool.add(self)
            self._pool.dial_ends()

    async def _close(self) -> None:
        try:
            with _translated():
                await self._transport.aclose()
                if self._socket is not None:
                    await self._socket.aclose()  # httpx forgets one whose handshake was cancelled
        except Broken:
            pass  # what a connection says to its end is of no use to anybody
        finally:
            if self._is_open:
                self._pool.discard(self)
            else:
                self._pool.dial_ends()


def fields_for_caller(status: int, raw: Headers) -> Headers:
    """The headers of an answer that go on to the caller, by the rules of `Answer`. Raises Broken."""
    if not 200 <= status <= 599:
        raise Broken("the upstream switched protocols" if status == 101 else f"status {status}")
    if sum(len(name) + len(value) + 4 for name, value in raw) > MOST_HEAD_BYTES:
        raise Broken(f"more than {MOST_HEAD_BYTES} bytes of headers")
    fields = [(name.lower(), value) for name, value in raw]
    try:
        for field in fields:
            check_field(*field)
    except UnsendableRequest:
        raise Broken("a header that is not valid") from None
    names = [name for name, _ in fields]
    lengths = [value for name, value in fields if name == b"content-length"]
    if len(lengths) > 1 or not all(length.isdigit() for length in lengths):
        raise Broken("more than one length, or one that is no number")
    if lengths and b"transfer-encoding" in names:
        raise Broken("both a length and a Transfer-Encoding")
    drop = NOT_OURS | options_of(value for name, value in fields if name == b"connection")
    drop -= {b"content-length"}
    if status in {204, 304}:
        drop |= {b"content-length"}
    return [field for field in fields if field[0] not in drop]


async def _pieces(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The body as it arrives, its encoding untouched. At its end the connection is free for the next."""
    with _translated():
        try:
            async for piece in response.stream:  # type: ignore[union-attr]  # an async transport's is one
                if piece:
                    yield piece
        finally:
            await response.aclose()


@contextmanager
def _translated() -> Iterator[None]:
    """Foreign errors become Broken."""
    try:
        yield
    except httpx.ProxyError as error:
        status = str(error).partition(" ")[0]
        told = f" with {status}" if status.isdigit() else ""
        raise Broken(f"the outbound proxy refused{told}") from None
    except httpx.ConnectError as error:
        raise Broken(_why(error)) from None
    except (httpx.ProtocolError, H2Error) as error:
        raise _what_was_wrong(error) from None
    except (httpx.HTTPError, OSError):
        raise Broken("connection reset", lost=True) from None


def _why(error: BaseException) -> str:
    """Why no connection came about: the first cause that says."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[-1]
        if isinstance(cause, ssl.SSLError | socket.gaierror | UnicodeError):
            return words(cause)
        if isinstance(cause, OSError) and cause.errno is not None:
            return words(cause)
        cause = cause.__cause__ or cause.__context__
    return "connection reset while it was opened"


def _what_was_wrong(error: Exception) -> Broken:
    """Of an answer, or of its end. httpx's own words may repeat what the upstream sent."""
    about = error.__cause__.args[:1] if error.__cause__ is not None else ()
    if about and isinstance(about[0], StreamReset):
        return Broken(f"the upstream reset the stream, HTTP/2 error {int(about[0].error_code or 0)}")
    text = str(error)
    if "disconnected" in text or "ConnectionTerminated" in text or text.startswith("peer closed"):
        return Broken("connection closed", lost=True)
    return Broken("not valid HTTP")
