"""A changed file: when to look again, and what may change without a restart."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Final

from watchfiles import awatch

from proxy.settings.load import LARGEST_FILE_BYTES, read
from proxy.settings.problems import SettingsError
from proxy.settings.schema import Settings

LOOK_AGAIN_S: Final = 5.0
"""The file is also read this often without an event: network file systems send none."""


def reread(path: Path, env: Mapping[str, str], current: Settings) -> Settings | SettingsError:
    """The settings in the file now, or why they cannot replace `current`. Nothing is changed here.

    The whole file is validated first. `listen`, `admin.listen` and `store` belong to the running process.
    """
    try:
        document, settings = read(path, env)
    except SettingsError as error:
        return error
    for key, now, wanted in (
        (("listen",), current.listen, settings.listen),
        (("admin", "listen"), current.admin.listen, settings.admin.listen),
    ):
        if now != wanted:
            document.fault(key, f"cannot change while the proxy runs; write {now} again, or restart it")
    if current.store != settings.store:  # its url may hold a secret, and is not repeated
        document.fault(("store",), "cannot change while the proxy runs; write it as it was, or restart it")
    return SettingsError(document.problems) if document.problems else settings


class Watcher:
    """Tells when the content of one file has changed: written in place, renamed over, or by a swapped
    symbolic link as Kubernetes does it. Use one at a time; `close` ends it."""

    def __init__(self, path: Path, *, look_again_s: float = LOOK_AGAIN_S) -> None:
        self._path = path.absolute()
        self._look_again_s = look_again_s
        self._closed = asyncio.Event()
        self._seen = self._digest()

    def close(self) -> None:
        """End `changes`. Safe to call twice."""
        self._closed.set()

    async def changes(self) -> AsyncIterator[None]:
        """One item for each change seen since the Watcher was made; changes that come together are one."""
        while not self._closed.is_set():
            folders = self._folders()
            if self._has_changed():
                yield
                continue
            events = awatch(
                *folders,
                watch_filter=None,
                step=100,
                rust_timeout=int(self._look_again_s * 1000),
                yield_on_timeout=True,
                stop_event=self._closed,
                recursive=False,
                ignore_permission_denied=True,
            )
            async with aclosing(events):
                async for _ in events:
                    if self._has_changed():
                        yield
                    if self._folders() != folders:
                        break  # a link leads elsewhere now: watch there

    def _has_changed(self) -> bool:
        digest = self._digest()
        if digest is None or digest == self._seen:
            return False  # a file that is not there is being swapped, or comes back: the old one serves on
        self._seen = digest
        return True

    def _digest(self) -> bytes | None:
        """What the file holds, or None while it is not there."""
        try:
            with self._path.open("rb") as file:
                return hashlib.sha256(file.read(LARGEST_FILE_BYTES + 1)).digest()
        except OSError:
            return None

    def _folders(self) -> list[Path]:
        """The folder that holds the name, and the one that holds the content; the nearest that exist."""
        wanted = {self._path.parent, self._path.resolve().parent}
        return sorted(
            {next(each for each in (folder, *folder.parents) if each.is_dir()) for folder in wanted}
        )
