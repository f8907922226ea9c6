"""The way to a Redis that several replicas share: redis-py's, and this is the one file that imports it.

Of redis-py it takes the connection, the protocol and the errors, and leaves its clients alone: they retry,
pool and look around by themselves, and the one for clusters reads the list of all commands whenever it
(re)connects, 60 ms in which the loop stands still. What a call may cost and when a connection is dropped
are said here.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final

from redis import exceptions as errors
from redis.asyncio import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

from proxy.stores.address import LIMITS, Address, Node, context

Arg = bytes | str | int | float

REDIRECTS: Final = 3  # to as many other nodes of a cluster one call is sent on

MOST_TEXT: Final = 200
"""Characters of the server's own words in an error of ours."""


class StoreUnavailable(Exception):
    """The store did not answer in time, could not be reached, or answered with an error.

    The message says which and where, never with a password: "redis://10.0.0.5:6379: no answer in 50 ms".
    `sent`: the script may have run, and only its reply was lost.
    """

    def __init__(self, what: str, *, sent: bool = True) -> None:
        super().__init__(what)
        self.sent = sent


class Link:
    """A connection to the store and one script, for ONE task: calls one after the other, never at once.

    Raises OSError or ssl.SSLError when made with a file that cannot be used; files are read once.
    """

    def __init__(self, address: Address, script: str) -> None:
        self._address = address
        self._script = script
        self._sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._tls = context(address) if address.tls else None
        self._lines: dict[Node, _Line] = {}
        self._seeds = list(address.hosts)  # whom to ask for the way, the last that failed at the end
        self._master: Node | None = None
        self._ranges: list[tuple[int, int, Node]] = []
        self._moved: dict[int, Node] = {}
        self._at = address.hosts[0]
        self._calling = False
        self._sent = False

    async def call(self, keys: Sequence[str], args: Sequence[Arg]) -> list[Any]:
        """Run the script and return its reply: one command, EVALSHA, once connected.

        A server that does not know the script gets it by EVAL, which runs it as well. All keys share a hash
        tag, and there is at least one. Raises StoreUnavailable. After an error, a time limit or a
        cancellation the connection is dropped, so that no late reply is taken for another call's.
        """
        if self._calling:
            raise RuntimeError("a Link is for one task: its calls come one after the other")
        self._calling = True
        self._sent = False
        whole_s = LIMITS[self._address.kind] * self._address.timeout_s
        answered = False
        limit = asyncio.timeout(whole_s)
        try:
            async with limit:
                reply: list[Any] = await self._run(keys, args)
        except (errors.RedisError, OSError, ValueError) as error:  # a ValueError: what came is not Redis's
            limit_s = whole_s if limit.expired() else self._address.timeout_s
            said = _said(error, limit_s, self._address.password)
            raise StoreUnavailable(f"{self._where()}: {said}", sent=self._sent) from None
        else:
            answered = True
            return reply
        finally:
            self._calling = False
            if not answered:
                self._drop()

    async def aclose(self) -> None:
        """Close the connection; a later call would open another."""
        self._drop()
        await asyncio.sleep(0)  # the loop closes the socket in its next turn

    def _drop(self) -> None:
        """Break off all connections at once and forget the way: the next call begins anew."""
        for line in self._lines.values():
            line.drop()
        self._lines.clear()
        self._master = None
        self._ranges.clear()
        self._moved.clear()
        self._seeds.append(self._seeds.pop(0))

    async def _run(self, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        if any(line.ended for line in self._lines.values()):
            self._drop()  # closed by the server between two calls: it may no longer be the one to ask
        node, asking = await self._node(keys), False
        for _ in range(REDIRECTS):
            line = await self._line(node)
            try:
                async with asyncio.timeout(self._address.timeout_s):
                    return await self._eval(line, (len(keys), *keys, *args), asking=asking)
            except errors.AskError as sent_on:  # MovedError is one: the slot has another owner for good
                asking = not isinstance(sent_on, errors.MovedError)
                node = _named(sent_on.host, sent_on.port, node)
                if not asking:
                    self._moved[sent_on.slot_id] = node
        raise _NobodyKnows("sent from node to node")

    async def _eval(self, line: _Line, rest: tuple[Arg, ...], *, asking: bool) -> Any:
        if asking:
            await line.ask("ASKING")
        self._sent = True
        try:
            return await line.ask("EVALSHA", self._sha, *rest)
        except errors.NoScriptError:
            if asking:  # it holds for one command
                await line.ask("ASKING")
            return await line.ask("EVAL", self._script, *rest)

    async def _line(self, node: Node) -> _Line:
        """An open connection to a server."""
        line = self._lines.get(node)
        self._at = node
        if line is None:
            address = self._address
            line = self._lines[node] = _line_to(node, address, self._tls, address.database)
            async with asyncio.timeout(address.timeout_s):
                await line.connect()
        return line

    async def _node(self, keys: Sequence[str]) -> Node:
        """The server to send to."""
        match self._address.kind:
            case "cluster":
                slot = key_slot(keys[0].encode())
                if not self._ranges:
                    await self._read_ranges()
                owners = [node for first, last, node in self._ranges if first <= slot <= last]
                if not owners:
                    raise _NobodyKnows(f"nobody in the cluster has slot {slot}")
                return self._moved.get(slot, owners[0])
            case "sentinel":
                if self._master is None:
                    command = "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.service
                    host, port = await self._ask_seeds(*command)
                    self._master = (host.decode(), int(port))
                return self._master
            case _:
                return self._address.hosts[0]

    async def _read_ranges(self) -> None:
        for first, last, owner, *_ in await self._ask_seeds("CLUSTER", "SLOTS"):
            self._ranges.append((first, last, _named((owner[0] or b"").decode(), owner[1], self._at)))
        owners = [node for _, _, node in self._ranges]
        known = {*self._address.hosts, *owners}  # a node that has left the cluster is not asked again
        self._seeds = [node for node in dict.fromkeys(self._seeds + owners) if node in known]

    async def _ask_seeds(self, *command: str) -> Any:
        """The reply of the first seed that has one. Each may take `timeout_s`, its connect included."""
        failure: Exception = _NobodyKnows(f"{' '.join(command)}: nobody knows")
        for _ in self._seeds.copy():
            seed = self._at = self._seeds[0]
            line = _line_to(seed, self._address, self._tls, 0)  # a sentinel has no databases, a cluster one
            try:
                async with asyncio.timeout(self._address.timeout_s):
                    await line.connect()
                    reply = await line.ask(*command)
                if reply:
                    return reply
            except (errors.RedisError, OSError, ValueError) as error:
                failure = error
            finally:
                line.drop()
            self._seeds.append(self._seeds.pop(0))
        raise failure

    def _where(self) -> str:
        return f"redis{'s' if self._tls else ''}://{self._at[0]}:{self._at[1]}"


def _named(host: str, port: int, by: Node) -> Node:
    """A node as another one names it: without a host, or with "?", it is that one's own."""
    return (by[0] if host in {"", "?"} else host, int(port))


class _NobodyKnows(errors.RedisError):
    """There is an answer, and it is not where to go."""


class _Line(Connection):
    """One connection. Limits of time are its caller's, and it is broken off, never wound up."""

    async def connect(self) -> None:
        """Open it, and say who we are."""
        await super().connect()  # type: ignore[no-untyped-call]

    async def ask(self, *command: Arg) -> Any:
        """Send a command and read its reply."""
        await self.send_command(*command, check_health=False)
        return await self.read_response()

    @property
    def ended(self) -> bool:
        """Has the server closed it?"""
        return self._reader is None or self._reader.at_eof()

    def drop(self) -> None:
        """Break it off: no reply on its way will be read, and no silent server is waited for."""
        writer = self._writer
        self._reader = self._writer = None
        if writer is not None:
            writer.transport.abort()

    async def disconnect(self, *_args: Any, **_kwargs: Any) -> None:
        """What redis-py does after an error, by its own way of closing: it would wait for the server."""
        self.drop()


class _TlsLine(_Line, SSLConnection):
    """One connection, over TLS."""


def _line_to(node: Node, address: Address, tls: ssl.SSLContext | None, database: int) -> _Line:
    """A connection that is yet to be opened. No retries: a call that failed is for its caller to repeat."""
    for_sentinel = address.kind == "sentinel" and node in address.hosts
    line = (_TlsLine if tls else _Line)(
        host=node[0],
        port=node[1],
        db=database,
        username=None if for_sentinel else address.username or None,
        password=None if for_sentinel else address.password or None,
        socket_timeout=None,
        socket_connect_timeout=None,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    if isinstance(line, _TlsLine):
        line.ssl_context.context = tls
    return line


CODES: Final[dict[type[Exception], str]] = {
    errors.BusyLoadingError: "LOADING",
    errors.ClusterDownError: "CLUSTERDOWN",
    errors.MasterDownError: "MASTERDOWN",
    errors.NoPermissionError: "NOPERM",
    errors.OutOfMemoryError: "OOM",
    errors.TryAgainError: "TRYAGAIN",
}
"""What redis-py takes off the text of an error, and gives a class instead."""


_IN_SCRIPT: Final = re.compile(r".*@user_script: \d+: -(?=[A-Z]+ )", re.DOTALL)
"""What Redis 6 says before the words of a command that failed in a script."""

_LOCKED_OUT: Final = "unauthenticated"
"""What Redis 7.0 says of a long command before a password; redis-py does not know it."""


def _said(error: Exception, limit_s: float, password: str) -> str:
    """What went wrong, in a few words. A server may repeat what it did not understand: not the password."""
    told = str(error).replace(password, "***") if password else str(error)
    text = " ".join(_IN_SCRIPT.sub("", told).split())[:MOST_TEXT]
    code = CODES.get(type(error))
    if isinstance(error, TimeoutError | errors.TimeoutError):
        return f"no answer in {limit_s * 1000:g} ms"
    if isinstance(error, errors.ReadOnlyError) or text.startswith("READONLY "):
        return "READONLY, a replica answers"
    if code is not None:
        return f"{code} {text}"
    if isinstance(error, errors.AuthenticationError) or _LOCKED_OUT in text:
        return _not_let_in(text)
    if isinstance(error, errors.ConnectionError):
        return _no_connection(error, text)
    return _os_words(error) if isinstance(error, OSError) else text


def _not_let_in(text: str) -> str:
    if "required" in text or _LOCKED_OUT in text:
        return "it asks for a password (NOAUTH)"
    return "wrong user or password (WRONGPASS)" if "invalid" in text else text


def _no_connection(error: errors.ConnectionError, text: str) -> str:
    """redis-py says which call failed and with which number; the system's error is behind it."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and text.startswith("Error "):
        return _os_words(cause)
    return "connection closed by the server" if text.startswith("Connection closed") else text


def _os_words(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'handshake').replace('_', ' ').lower()}"
    if isinstance(error, socket.gaierror):
        return "name not found"
    if error.errno is None:
        return " ".join(str(error).split())[:MOST_TEXT]
    return os.strerror(error.errno).lower()
