"""The upstream as an ASGI app: one call from top to bottom."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace
from typing import assert_never

from starlette.types import Receive, Scope, Send

from proxy.demo import anthropic, control, gemini, openai, responses, tools
from proxy.demo.answers import Answer, Request, tokens_of
from proxy.demo.behaviour import Behaviour, Brownout, Cut, Hang, Ok, Outage, Refuse
from proxy.demo.delivery import deliver, fail, refuse
from proxy.demo.ledger import Ending, Entry, Ledger
from proxy.demo.mcp import McpServer
from proxy.demo.provider import Provider
from proxy.demo.slots import Slots
from proxy.demo.wire import BodyTooLongError, CallerLeftError, Wire


class DemoUpstream:
    """A model provider, a tool and an MCP server on one port, with a capacity and ways to fail.

    `behaviour` may be changed field by field at any time; `ledger` has all that was seen. Must be served by
    `serve_demo`, because it ends connections in ways that ASGI alone cannot.
    """

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self._behaviour = behaviour if behaviour is not None else Behaviour()
        self.ledger = Ledger()
        self.slots = Slots(self.behaviour.served_at_once)
        self._at_start = replace(self.behaviour)
        self._chance = random.Random(self.behaviour.seed)
        self._hung: set[asyncio.Future[bool]] = set()
        self._mcp = McpServer()
        self._provider: Provider | None = None
        self.behaviour.watch(self._behaviour_changed)

    @property
    def behaviour(self) -> Behaviour:
        """What is simulated. Assign its fields; the object itself stays."""
        return self._behaviour

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and write down how it ended."""
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served, not {scope['type']}")
        wire = Wire(scope, receive, send)
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        if path.startswith("/_demo/"):
            await control.serve(self, wire, path, query)
            return
        entry = self.ledger.arrive(scope["method"], path, query, scope["headers"])
        ending = Ending.FAILED
        try:
            ending = await self._serve(wire, entry)
        except CallerLeftError:
            ending = Ending.LEFT
        finally:
            entry.status = wire.status
            self.ledger.end(entry, ending)

    def reset(self) -> None:
        """Behaviour and chance as they were at the start, and a ledger of none but the calls still open."""
        self.behaviour.take(self._at_start)
        self._chance = random.Random(self.behaviour.seed)
        self._provider = None
        self.ledger.reset()

    async def _serve(self, wire: Wire, entry: Entry) -> Ending:
        try:
            body = await wire.read(entry)
        except BodyTooLongError:
            entry.dialect = "rest"
            return await fail(wire, Answer(tools.error_body), 413, "The body is too long.")
        answer = self._recognise(wire, entry, body)
        if answer.is_work:
            self.ledger.begin_work(entry, wire.connection.has_left)
        mode = await self._mode_after_hang(wire, answer.tool)
        if isinstance(mode, Ok) and (lacks_s := self._charge(answer, body)):
            mode = Refuse(lacks_s)
        match mode:
            case Outage(answer="500"):
                return await fail(wire, answer, 500, "The upstream is out of order.")
            case Outage(answer=how):
                await wire.connection.close(reset=how == "reset")
                return Ending.FAILED
            case Refuse(retry_after_s=wait_s):
                return await refuse(wire, answer, wait_s, answer.headers)
            case Ok() | Brownout() | Cut():
                if answer.is_work:
                    return await self._work(wire, entry, answer, mode)
                return await deliver(wire, answer, is_cut=isinstance(mode, Cut))
            case unreachable:
                assert_never(unreachable)

    def _recognise(self, wire: Wire, entry: Entry, body: bytes) -> Answer:
        path = entry.path
        request = Request(entry.number, entry.method, path, entry.query, dict(wire.scope["headers"]), body)
        if path == "/v1/chat/completions":
            entry.dialect, answer = "openai", openai.chat(request, self.behaviour)
        elif path == "/v1/responses":
            entry.dialect, answer = "openai", responses.respond(request, self.behaviour)
        elif path == "/v1/messages":
            entry.dialect, answer = "anthropic", anthropic.messages(request, self.behaviour)
        elif path == "/v1/models":
            entry.dialect, answer = "openai", openai.models(request, self.behaviour)
        elif (asked := gemini.asked_in(path)) is not None:
            entry.dialect, answer = "gemini", gemini.answer(request, self.behaviour, asked)
        elif path == "/mcp":
            entry.dialect, answer = "mcp", self._mcp.answer(request, self.behaviour)
        elif path.startswith("/tools/"):
            entry.dialect, answer = "rest", tools.call(request, self.behaviour)
        else:
            entry.dialect, answer = "rest", tools.unknown(request, self.behaviour)
        entry.answered_by(answer)
        entry.model, entry.tool, entry.is_streamed = answer.model, answer.tool, answer.stream is not None
        return answer

    async def _work(self, wire: Wire, entry: Entry, answer: Answer, mode: Ok | Brownout | Cut) -> Ending:
        await self.slots.take(wire.connection)
        try:
            self.ledger.start(entry)
            stretch = self.behaviour.congestion(self.ledger.in_flight) * self._luck()
            await wire.pause(self.behaviour.latency_s * stretch)
            if isinstance(mode, Brownout) and self._chance.random() < mode.share:
                return await fail(wire, answer, 500, "The upstream is overloaded.")
            gap_s = self.behaviour.event_gap_s * stretch
            return await deliver(wire, answer, gap_s=gap_s, is_cut=isinstance(mode, Cut))
        finally:
            self.slots.give()

    def _charge(self, answer: Answer, body: bytes) -> float:
        """Let a provider's limits be told with the answer to a model call. How long it must wait for them."""
        limits = self.behaviour.limits
        if limits is None or not answer.model:
            return 0.0
        if self._provider is None or self._provider.limits != limits:
            self._provider = Provider(limits)
        wait_s, told = self._provider.take(tokens_of(body))
        answer.headers += told
        return wait_s

    def _luck(self) -> float:
        sigma = self.behaviour.sigma
        return math.exp(sigma * self._chance.gauss(0.0, 1.0)) if sigma else 1.0

    async def _mode_after_hang(self, wire: Wire, tool: str) -> Ok | Outage | Brownout | Refuse | Cut:
        while isinstance(mode := self.behaviour.mode_of(tool), Hang):
            waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._hung.add(waiter)
            try:
                await wire.connection.wait(waiter)
            finally:
                self._hung.discard(waiter)
        return mode

    def _behaviour_changed(self) -> None:
        for waiter in self._hung:
            if not waiter.done():
                waiter.set_result(True)
        self.slots.offer()
