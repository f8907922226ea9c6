"""One process of the proxy: sockets, signals, reload and the way out.

Start: bind both sockets before anything else, so that a port in use is the first thing said. SIGHUP or a
changed file: read the whole file, then follow it, or keep the old one and say why. SIGTERM or SIGINT: not
ready, refuse what is new, let what runs finish for `drain`, close. A second signal: close now.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import uvicorn

from proxy import __version__
from proxy.app import Proxy
from proxy.control import ControlConnection, check_exposure, control_app
from proxy.listener import Bounds, Reception
from proxy.memory import settle_memory
from proxy.settings import Settings, SettingsError, Watcher, reread
from proxy.settings.words import Address
from proxy.telemetry import Log

KEEP_ALIVE_S: Final = 75
"""Of the control plane, as the data plane's by default. Precedent: nginx's keepalive_timeout."""

BACKLOG: Final = 4096
"""Connections that may wait to be accepted; Linux cuts it to net.core.somaxconn (4096 since 5.4)."""

LAST_WORDS_S: Final = 1
"""After `drain`, what still runs is cut; uvicorn may take this long to close the rest."""


class CannotListen(Exception):
    """An address cannot be listened on; the message says which, why and what to do."""


class _Server(uvicorn.Server):
    """uvicorn without its own signals: this module decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@dataclass(frozen=True, slots=True)
class Started:
    """A running proxy: where it listens, and the proxy itself."""

    data: Address
    control: Address
    proxy: Proxy
    reception: Reception


@dataclass(frozen=True, slots=True)
class Place:
    """Where one of several workers listens: `data` is a port that all of them share."""

    data: Address
    control: Address


@contextlib.asynccontextmanager
async def serving(
    settings: Settings, log: Log | None = None, place: Place | None = None
) -> AsyncIterator[Started]:
    """Serve both planes in the running loop until the end of the block. Raises CannotListen.

    Without a `place` they listen where the settings say. At the end connections are closed without draining:
    `run` drains before.
    """
    token = settings.admin.token.get_secret_value() if settings.admin.token else None
    exposed = check_exposure(settings.admin.listen.host, token)
    if exposed is not None:
        raise CannotListen(f"cannot listen on {settings.admin.listen} (admin.listen): {exposed}")
    proxy = Proxy(settings, log=log)
    control = control_app(proxy.state, proxy.telemetry, proxy.not_ready, token, __version__, proxy.halt)
    with contextlib.ExitStack() as sockets:
        at = place or Place(settings.listen, settings.admin.listen)
        data_socket = sockets.enter_context(listening(at.data, "listen", shared=place is not None))
        control_socket = sockets.enter_context(listening(at.control, "admin.listen"))
        reception = Reception(bounds_of(settings), proxy.telemetry.connection_ended)
        data_server, control_server = _server(proxy, reception), _server(control, ControlConnection)
        serves = [
            asyncio.create_task(data_server.serve(sockets=[data_socket])),
            asyncio.create_task(control_server.serve(sockets=[control_socket])),
        ]
        proxy.start()
        try:
            yield Started(_address(data_socket), _address(control_socket), proxy, reception)
        finally:
            data_server.should_exit = control_server.should_exit = True
            await asyncio.gather(*serves)
            await proxy.aclose()


async def run(
    settings: Settings,
    path: Path | None,
    log: Log,
    started: Callable[[Started], None],
    place: Place | None = None,
) -> None:
    """Serve until a signal says stop, and drain. Raises CannotListen."""
    loop = asyncio.get_running_loop()
    stop, stop_now, hangup = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def on_stop() -> None:
        (stop_now if stop.is_set() else stop).set()

    open_many_files()
    async with serving(settings, log, place) as running:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_stop)
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
        reloading = None
        if path is not None:
            watcher = Watcher(path)
            _reread(running, path)  # it may have changed since it was read first, unwatched
            reloading = asyncio.create_task(_reload(running, path, watcher, hangup))
        settle_memory()
        started(running)
        log.started(__version__, str(running.data), str(running.control))
        await stop.wait()
        if reloading is not None:
            reloading.cancel()
        running.proxy.drain()
        log.draining(settings.drain_s)
        await _drained(running.proxy, stop_now, within_s=running.proxy.settings.drain_s)
        log.stopped()


async def _reload(running: Started, path: Path, watcher: Watcher, hangup: asyncio.Event) -> None:
    """Follow the file: on SIGHUP and on every change."""

    async def on_hangup() -> None:
        while True:
            await hangup.wait()
            hangup.clear()
            _reread(running, path)

    async def on_change() -> None:
        async for _ in watcher.changes():
            _reread(running, path)

    async with asyncio.TaskGroup() as both:
        both.create_task(on_hangup())
        both.create_task(on_change())


def _reread(running: Started, path: Path) -> None:
    proxy = running.proxy
    try:
        settings = reread(path, os.environ, proxy.settings)
        if isinstance(settings, SettingsError):
            proxy.telemetry.reloaded(False, str(settings))
        elif settings != proxy.settings:
            proxy.reload(settings)
            running.reception.bounds = bounds_of(settings)  # for the connections from now on
            proxy.telemetry.reloaded(True)
    except Exception as error:  # noqa: BLE001 - a defect of ours in one reload must not end all later ones
        proxy.telemetry.reloaded(False, f"{path}: {type(error).__name__}: {error}")


def open_many_files() -> None:
    """As many as the system lets this process have open: a shell's soft bound is often 1024, which
    `connections.max_open` counts on being more. Precedents: HAProxy, and Go since 1.19."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS calls it unlimited and then refuses: what is allowed already is kept.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def bounds_of(settings: Settings) -> Bounds:
    """What one caller may ask of the data plane."""
    headers, connections = settings.headers, settings.connections
    return Bounds(
        most_head_bytes=headers.max_bytes,
        most_url_bytes=headers.max_url_bytes,
        most_headers=headers.max_count,
        most_pipelined=connections.max_pipelined,
        most_connections=connections.max_open,
        idle_s=connections.keep_alive_s,
        head_s=connections.head_within_s,
        body_bytes_per_s=connections.body_bytes_per_s,
        body_window_s=connections.body_window_s,
    )


def listening(address: Address, key: str, *, shared: bool = False) -> socket.socket:
    """A bound, listening socket; `shared` with others of this user that ask for it. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # Named as TCP: asyncio switches Nagle's delay off only on sockets that say so.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        remedy = {
            errno.EADDRINUSE: "another program listens there; stop it, or write another port",
            errno.EACCES: "this user may not; write a port above 1023",
            errno.EADDRNOTAVAIL: "this machine has no such address",
        }.get(error.errno or 0, error.strerror or str(error))
        raise CannotListen(f"cannot listen on {address} ({key}): {remedy}") from error
    return sock


def _server(app: Any, protocol: Callable[..., object]) -> _Server:
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", protocol),  # uvicorn calls it, and asks nothing else of it
        interface="asgi3",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # what uvicorn would tell is an ordinary day here, or told by our own log
        access_log=False,
        proxy_headers=False,  # X-Forwarded-For is the relay's business, and nobody is trusted by default
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_WORDS_S,
    )
    return _Server(config)


def _address(sock: socket.socket) -> Address:
    host, port = sock.getsockname()[:2]
    return Address(host, port)


async def _drained(proxy: Proxy, stop_now: asyncio.Event, within_s: float) -> None:
    """Wait until nothing runs, until a second signal, or until the time is over."""
    waits = [asyncio.create_task(proxy.idle()), asyncio.create_task(stop_now.wait())]
    try:
        await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
