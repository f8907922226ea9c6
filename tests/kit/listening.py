"""What the servers of the kit share: a port, a task for each connection, an end that shows what failed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Listening(ABC):
    """A server on a free port while its `async with` block lasts; its connections end with the block.

    A far side that leaves ends its own connection and nothing else. What else goes wrong in a connection is
    kept in `errors`, and the first of them is raised at the end of the block, if that has not failed itself.
    """

    def __init__(self, *, context: ssl.SSLContext | None = None, receive_buffer: int | None = None) -> None:
        self._context = context
        self._receive_buffer = receive_buffer
        self._tasks: set[asyncio.Task[None]] = set()
        self.errors: list[BaseException] = []

    @abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; when it returns the connection is closed well."""

    @property
    def open(self) -> int:
        """How many connections have not ended."""
        return len(self._tasks)

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"{'https' if self._context else 'http'}://localhost:{self.port}"

    async def __aenter__(self) -> Self:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if self._receive_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        listener.bind(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._accept, sock=listener, ssl=self._context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if error is None and self.errors:
            raise self.errors[0]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # the far side left: a test need not say what its server does then
        except Exception as error:  # noqa: BLE001 - raised again where the test can see it
            self.errors.append(error)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            writer.close()
            try:
                await writer.wait_closed()
            except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
                writer.transport.abort()
            self._tasks.discard(task)
