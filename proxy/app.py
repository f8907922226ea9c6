"""The composition root: settings become objects, and objects the data plane.

Nothing else builds anything. `Proxy` is the data plane; `server.py` gives it sockets and signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from proxy.admission import Admission
from proxy.assembly import identity_of, table_of, upstream_of, upstreams_of, wiring
from proxy.core.claims import Store
from proxy.core.costs import Costs
from proxy.core.events import StoreMoved
from proxy.core.gate import Gate
from proxy.core.hearsay import Hearsay
from proxy.core.outbox import Outbox
from proxy.core.repeats import Repeats
from proxy.core.state import GateState
from proxy.core.survey import survey
from proxy.dialects.fingerprint import Digests
from proxy.pipeline import Pipeline
from proxy.recognise import Serving
from proxy.settings import Settings, to_policy
from proxy.stores.address import LIMITS, Address
from proxy.stores.breakers import BreakerMachine
from proxy.stores.contact import Contact
from proxy.stores.hints import Mail
from proxy.stores.holdings import Holdings
from proxy.stores.memory import MemoryStore
from proxy.stores.shared import SharedStore
from proxy.stores.standing import banner, not_ready
from proxy.telemetry import Log, Telemetry
from proxy.upstream import Upstream
from proxy.wire import Wire

if TYPE_CHECKING:
    from proxy.stores.trips import Trips

LAST_STEPS_S: Final = 1.0
"""At the end, for calls that were cut to give back what they hold."""

CRASHED: Final = b'{"error":{"code":"internal_error","message":"The proxy failed. The call may have run."}}'


class Proxy:
    """The data plane, with everything behind it; `listener.CallerConnection` calls it for each request.

    `reload` replaces the rules between two calls and keeps the counts; `drain` refuses what is new and
    `idle` waits for what is running. Call `aclose` at the end.
    """

    def __init__(
        self, settings: Settings, *, log: Log | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self._clock = clock
        policy = to_policy(settings)
        self.telemetry = Telemetry(
            classes=policy.classes,
            state=self.state,
            connections=self._connections,
            tasks=lambda: len(asyncio.all_tasks()),
            log=log,
        )
        self._trips: Trips | None = None
        outbox = Outbox(os.urandom(6).hex()) if settings.store.shared else None
        self._gate = Gate(policy, self._store(outbox), BreakerMachine, self.telemetry.emit)
        self._admission = Admission(self._gate, clock=clock)
        self._repeats = Repeats(outbox)
        self._costs = Costs()  # what was learnt outlives a reload
        self._share_hints(outbox)
        self._digests = Digests()
        self._upstreams = upstreams_of(settings)
        self._retired: set[asyncio.Task[None]] = set()
        self._pipeline = Pipeline(self._serving(), clock=clock)

    async def __call__(self, wire: Wire) -> None:
        """Serve one request, as `listener.CallerConnection` hands it over."""
        try:
            await self._pipeline.serve(wire)
        except Exception as error:  # noqa: BLE001 - a defect of ours ends one call, is told, and no other call
            self.telemetry.crashed(error)
            if not wire.started:
                wire.answer(500, [(b"content-type", b"application/json")], CRASHED)
        finally:
            # Cancelled because the drain is over, crashed midway, or stalled: a reset, which no SDK takes
            # for an answer.
            if not wire.done:
                wire.reset()
            wire.served()

    def start(self) -> None:
        """Begin what runs beside the calls: the trips to a shared store. Call in the running loop."""
        if self._trips is not None:
            self._trips.start()

    def state(self) -> GateState:
        """What the gate counts at this instant."""
        now, store, trips = self._clock(), self.settings.store, self._trips
        stands = None if trips is None else trips.state(store.kind, store.shown, now)
        told = "" if stands is None else banner(stands)
        return survey(self._gate, now, self._names(), self.telemetry.kept_shares(), stands, told)

    def not_ready(self) -> str | None:
        """Why this replica should get no new calls; None when it should."""
        if self._gate.draining:
            return "draining"
        trips = self._trips
        return None if trips is None else not_ready(trips.contact, self._gate.policy.routes.values())

    def reload(self, settings: Settings) -> None:
        """Follow new settings from the next call on. Counts survive; a call that runs is not touched."""
        old, upstreams = self.settings, self._upstreams
        kept = {
            name: upstreams[name]
            for name in settings.upstreams
            if name in upstreams
            and wiring(old, name) == wiring(settings, name)
            and upstreams[name].is_current
        }
        # What can fail comes first: either all of it is followed or nothing.
        fresh = {name: kept.get(name) or upstream_of(name, settings) for name in settings.upstreams}
        policy = to_policy(settings)
        self.settings, self._upstreams = settings, fresh
        self._pipeline.serving = self._serving()
        self.telemetry.reclassify(policy.classes)
        self._admission.adopt(policy)
        for name, upstream in upstreams.items():
            if name not in kept:
                self._retire(upstream)

    def halt(self, run: str) -> None:
        """Refuse each further call of a run; those that wait are refused when it is their turn."""
        self._gate.runs.budgets.halt(run)

    def drain(self) -> None:
        """Refuse who waits and who comes from now on."""
        self._admission.drain()

    async def idle(self) -> None:
        """Wait until no call is running."""
        await self._pipeline.idle()

    async def aclose(self) -> None:
        """Close every connection to an upstream; what still runs is cut. Hand back what the store leased."""
        self._admission.close()
        if self._trips is not None:
            await self._trips.stop()
        for upstream in self._upstreams.values():
            upstream.abort()
            await upstream.aclose()
        await asyncio.gather(*self._retired)
        with contextlib.suppress(TimeoutError):  # calls are no tasks: the event loop's end waits for none
            await asyncio.wait_for(self._pipeline.idle(), LAST_STEPS_S)

    def _store(self, outbox: Outbox | None) -> Store:
        """The counts; shared with other replicas where there is something to tell them."""
        if outbox is None:
            return MemoryStore()
        from proxy.stores.redis import Link  # noqa: PLC0415 - only who shares needs a client for it
        from proxy.stores.trips import SCRIPT, Trips  # noqa: PLC0415

        store = self.settings.store
        address = Address(
            kind=store.kind,
            hosts=store.hosts,
            username=store.username,
            password=store.password.get_secret_value() if store.password else "",
            database=store.database,
            service=store.service,
            tls=store.tls,
            ca=str(store.ca or ""),
            cert=str(store.cert or ""),
            key=str(store.key or ""),
            verify=store.verify,
            timeout_s=store.timeout_s,
        )
        contact = Contact(
            safe_for_s=store.safe_for_s,
            timeout_s=LIMITS[store.kind] * store.timeout_s,
            chance=random.random,
            moved=lambda old, new, why: self.telemetry.emit(StoreMoved(store.shown, old, new, why)),
        )
        holdings = Holdings(outbox.replica, contact)
        self._trips = Trips(
            holdings,
            Link(address, SCRIPT),
            store.namespace,
            self._opened,
            self._clock,
            self.telemetry.trip_answered,
            self.telemetry.crashed,
        )
        return SharedStore(holdings)

    def _share_hints(self, outbox: Outbox | None) -> None:
        """Let what replicas tell each other besides counts go with the trips."""
        if self._trips is not None and outbox is not None:
            self._trips.mail = Mail(Hearsay(self._gate, self._repeats, outbox))

    def _opened(self, keys: list[str]) -> None:
        assert self._trips is not None, "they tell it"  # noqa: S101
        self._admission.opened(keys, self._trips.contact.replicas)

    def _retire(self, upstream: Upstream) -> None:
        task = asyncio.get_running_loop().create_task(upstream.aclose())
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    def _connections(self) -> Iterator[tuple[tuple[str, str], int]]:
        for name, upstream in self._upstreams.items():
            pool = upstream.pool
            yield (name, "in_use"), pool.in_use
            yield (name, "idle"), pool.idle
            yield (name, "dialling"), pool.dialling

    def _names(self) -> set[str]:
        return {known.name for known in self.settings.callers.known}

    def _serving(self) -> Serving:
        return Serving(
            table=table_of(self.settings, self._upstreams),
            identity=identity_of(self.settings),
            peek_bytes=self.settings.peek_bytes,
            admission=self._admission,
            repeats=self._repeats,
            digests=self._digests,
            telemetry=self.telemetry,
            costs=self._costs,
        )
