"""The task that makes a replica's trips to the ledger: one at a time, and never inside a call.

A call that waits for a trip waits in the queue like any other; if its caller leaves, the trip goes on. So
no cancellation can tear a reply from its command. The script is `lua/trade.lua`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from proxy.core.bucket_trade import BucketAsk, BucketTold
from proxy.core.cap_trade import CapAsk, CapTold
from proxy.core.ledger import LEASE_S, Ask, Reply, Told, Trip
from proxy.core.quota_trade import QuotaTold
from proxy.core.rounding import NEVER
from proxy.core.state import StoreState
from proxy.stores.contact import Contact
from proxy.stores.hints import Mail
from proxy.stores.holdings import Holdings
from proxy.stores.redis import StoreUnavailable
from proxy.stores.standing import standing

SCRIPT: Final = (Path(__file__).parent / "lua" / "trade.lua").read_text(encoding="utf-8")

LAYOUT: Final = "1"
"""Of the keys and what is in them. A release that changes it counts apart from those before."""

GOODBYE_S: Final = 0.5
"""At the end, for the trip that hands back what is held."""


class Link(Protocol):
    """`redis.Link`, as far as a trip needs it."""

    async def call(self, keys: list[str], args: list[bytes | str | int | float]) -> list[Any]: ...
    async def aclose(self) -> None: ...


class Trips:
    """Runs until `stop`. `opened` is told the keys under which there may be room that was not before.

    `answered` is told how long each trip took that had an answer, `crashed` of a defect of ours in one.
    `made` counts all trips, `missed` those without an answer, `asks` what they carried. `mail`, where there
    is any, goes with the trips in turn.
    """

    def __init__(
        self,
        holdings: Holdings,
        link: Link,
        namespace: str,
        opened: Callable[[list[str]], None],
        clock: Callable[[], float],
        answered: Callable[[float], None] = lambda _took_s: None,
        crashed: Callable[[BaseException], None] = lambda _error: None,
    ) -> None:
        self._holdings = holdings
        self._link = link
        self._namespace = namespace
        self._opened = opened
        self._clock = clock
        self._answered = answered
        self._crashed = crashed
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.mail: Mail | None = None
        self.made = 0
        self.missed = 0
        self.asks = 0
        holdings.wake = self._hurry.set

    @property
    def contact(self) -> Contact:
        """How this replica stands with the ledger."""
        return self._holdings.contact

    def state(self, kind: str, shown: str, now: float) -> StoreState:
        """The same and more, for those who look on; `shown` is where the ledger is."""
        unread = 0 if self.mail is None else self.mail.unread
        counts = {"trips": self.made, "missed": self.missed, "asks": self.asks, "unread": unread}
        return standing(self._holdings, kind, shown, now, **counts)

    def start(self) -> None:
        """Begin, in the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Hand back what is held, as far as the store answers, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            with contextlib.suppress(TimeoutError):  # then what is held is free when its lease has ended
                await asyncio.wait_for(self._goodbye(), GOODBYE_S)
        await self._link.aclose()

    async def _goodbye(self) -> None:
        await self._trip(leaving=True)
        while self._holdings.has_more and not self.contact.lost_s(self._clock()):
            await self._trip(leaving=True)

    async def _run(self) -> None:
        while True:
            await self._until_due()
            await self._trip()

    async def _until_due(self) -> None:
        while True:
            self._hurry.clear()
            wait_s = self._holdings.due_at(self._clock()) - self._clock()
            if wait_s <= 0.0:
                return
            try:
                async with asyncio.timeout(None if wait_s == NEVER else wait_s):
                    await self._hurry.wait()
            except TimeoutError:
                continue

    async def _trip(self, *, leaving: bool = False) -> None:
        holdings, began_at = self._holdings, self._clock()
        trip = holdings.pack(began_at, leaving=leaving)
        if self.mail is not None and holdings.begins_turn:
            trip.hint = self.mail.outgoing(self.contact.replicas, began_at)
        keys, args = encode(trip, self._namespace)
        try:
            reply = decode(await self._link.call(keys, args), trip)
        except StoreUnavailable as error:
            self.missed += 1
            opened = holdings.missed(str(error), self._clock(), heard=error.sent)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not end all trips in silence
            self.missed += 1
            self._crashed(error)
            opened = holdings.missed(f"{type(error).__name__}: {error}", self._clock())
        else:
            came_at = self._clock()
            self._answered(came_at - began_at)
            if self.mail is not None and reply.hints:
                self.mail.came(reply.hints, began_at, came_at)
            opened = holdings.unpack(reply, came_at)
        self.made += 1
        self.asks += len(trip.asks)
        self._opened(opened)
        holdings.put_back()


def encode(trip: Trip, namespace: str, now: float | None = None) -> tuple[list[str], list[Any]]:
    """The script's KEYS and ARGV; `now` in place of the server's clock, for tests."""
    tag = f"{{{namespace}}}:{LAYOUT}"
    keys = [f"{tag}:ledger", f"{tag}:hints"]
    args: list[Any] = [
        "" if now is None else repr(now),
        repr(LEASE_S),
        trip.replica,
        trip.number,
        trip.seq,
        int(trip.safe),
        int(trip.leaving),
        trip.hint,
    ]
    for key, ask in trip.asks:
        kind, numbers = _numbers(ask)
        keys.append(f"{tag}:{kind}:{key}")
        args.append(kind)
        args += [repr(number) for number in numbers]
    return keys, args


def decode(reply: list[Any], trip: Trip) -> Reply:
    """What the script returned. Raises StoreUnavailable where it is not what this release understands."""
    try:
        words = iter(reply)
        stale = int(next(words)) == 1
        seq, replicas, learning_s = int(float(next(words))), int(float(next(words))), float(next(words))
        hints: list[tuple[float, bytes]] = []
        if not stale:
            hints = [(float(next(words)), next(words)) for _ in range(int(float(next(words))))]
        told = [] if stale else [_told(ask, words) for _, ask in trip.asks]
    except (StopIteration, TypeError, ValueError) as error:
        raise StoreUnavailable(f"the store's script answered in words of another release: {error}") from error
    if stale:
        raise StoreUnavailable("the store has heard of a later trip of this replica")
    return Reply(seq, replicas, learning_s, told, hints=hints)


def _numbers(ask: Ask) -> tuple[str, tuple[float, ...]]:
    if isinstance(ask, BucketAsk):
        return "b", (
            ask.rate, ask.burst, ask.keep, ask.hand, ask.back,
            ask.demand, ask.need, ask.room, ask.unit, ask.left,
        )  # fmt: skip
    if isinstance(ask, CapAsk):
        return "c", (ask.slots, ask.keep, ask.wanted, ask.waiting, int(ask.quick))
    return "q", (
        ask.amount, ask.window_s, ask.back, ask.over, ask.need, ask.left, ask.ends_at, int(ask.lasts),
    )  # fmt: skip


def _told(ask: Ask, words: Any) -> Told | None:
    first = next(words)
    if first in (b"-", "-"):
        return None
    number = float(first)
    if isinstance(ask, BucketAsk):
        rate, bound, level, free, void = [float(next(words)) for _ in range(5)]
        return BucketTold(number, rate, bound, level, free, void=bool(void))
    if isinstance(ask, CapAsk):
        counted, free_slots, owed = [int(float(next(words))) for _ in range(3)]
        return CapTold(int(number), counted, free_slots, owed)
    left, ends_at, ends_s = [float(next(words)) for _ in range(3)]
    return QuotaTold(int(number), int(left), ends_at, ends_s)
