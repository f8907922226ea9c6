"""Where uvicorn hands over a new connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from proxy.core.verdict import End
from proxy.listener.bounds import Bounds
from proxy.listener.connection import CallerConnection
from proxy.listener.turn import Turn
from proxy.wire import Wire


class Reception:
    """What uvicorn calls for a caller's connection: gives it the bounds of that moment."""

    __slots__ = ("_ended", "_turn", "bounds")

    def __init__(self, bounds: Bounds, ended: Callable[[End], None]) -> None:
        """`bounds` may be replaced: what is set holds for connections from then on.

        `ended` is told of each connection that we end, other than after its last answer.
        """
        self.bounds = bounds
        self._ended = ended
        self._turn: Turn | None = None

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002 - uvicorn's signature; there is no lifespan
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> CallerConnection:
        serve = cast("Callable[[Wire], Coroutine[Any, Any, None]]", config.loaded_app)
        loop = _loop or asyncio.get_event_loop()
        if self._turn is None or self._turn.loop is not loop:
            self._turn = Turn(loop)
        return CallerConnection(serve, server_state, self.bounds, self._ended, self._turn)
