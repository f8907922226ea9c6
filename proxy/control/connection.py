"""The control plane's connections: uvicorn's own, with a bound on what is read before a token is asked."""

from __future__ import annotations

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_BYTES: Final = 64 * 1024
"""Of one request, head and body: nothing here takes a body. Precedent: Envoy, 60 KiB of headers."""


class ControlConnection(HttpToolsProtocol):
    """Cuts whoever sends more than any request to the control plane needs."""

    _read = 0

    def data_received(self, data: bytes) -> None:
        self._read += len(data)
        if self._read > MOST_BYTES:
            self.transport.abort()
        else:
            super().data_received(data)

    def on_response_complete(self) -> None:
        self._read = 0
        super().on_response_complete()
