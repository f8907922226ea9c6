"""What it costs to count tokens: of a call, and of an event of a stream, beside the same without.

    make counting

An event goes through the caller's side of an exchange (`wire.Wire`) to a connection that takes it: with
nothing that reads it, with the meter, and with the meter where the usage was asked for by us, so that every
event carries `"usage":null` and loses it again. A call is decided and settled by the real gate: with a bucket
of requests; and with one of tokens, its body read and estimated, its answer read, and what it told learnt.

Each figure is the least of rounds that alternate between the ways, in microseconds, and its ratio to none:
whatever else a machine does makes it longer, and nothing makes it shorter.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, Final

from proxy.core import gate as gate_module
from proxy.core.call import Call
from proxy.core.costs import Costs
from proxy.core.gate import Gate, Grant
from proxy.core.policy import (
    BucketPolicy,
    CapPolicy,
    Per,
    Policy,
    QueuePolicy,
    RoutePolicy,
    Unit,
    UpstreamPolicy,
)
from proxy.core.state import GateState
from proxy.core.verdict import Outcome
from proxy.counting import Count
from proxy.dialects import dialect_named
from proxy.dialects.estimate import size_of
from proxy.dialects.meter import Meter
from proxy.dialects.removing import Remover
from proxy.stores.breakers import BreakerMachine
from proxy.stores.memory import MemoryStore
from proxy.telemetry import Telemetry
from proxy.upstream import Result
from proxy.wire import Connection, Wire

EVENTS: Final = 200
ROUNDS: Final = 300

SSE: Final = [(b"content-type", b"text/event-stream")]
JSON: Final = [(b"content-type", b"application/json")]

EVENT: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767225600,"model":"demo-large",'
    b'"choices":[{"index":0,"delta":{"content":" room"},"logprobs":null,"finish_reason":null}]%b}\n\n'
)
ANSWER: Final = (
    b'{"choices":[{"message":{"content":"%b"}}],"usage":{"prompt_tokens":300,"completion_tokens":80}}'
)
ASK: Final = b'{"model":"demo-large","max_tokens":200,"messages":[{"role":"user","content":"%b"}]}'


class Sink(Connection):
    """A connection that takes all at once."""

    peer = b""
    scheme = "http"
    slow = False

    @property
    def gone(self) -> bool:
        return False

    def on_gone(self, callback: Callable[[], None] | None) -> None: ...
    def write(self, piece: bytes) -> None: ...
    async def drained(self) -> None: ...
    def resume_reading(self) -> None: ...
    def reset(self, *, hard: bool = False) -> None: ...
    def answered(self, wire: Wire) -> None: ...
    def served(self, wire: Wire) -> None: ...


def stream(meter: Meter | None, event: bytes) -> float:
    """Microseconds of one event."""
    wire = Wire(Sink())
    wire.meter = meter
    wire.start(200, SSE)
    begin = perf_counter_ns()
    for _ in range(EVENTS):
        wire.write(event)
        wire.flush()
    return (perf_counter_ns() - begin) / EVENTS / 1000


class Door:
    """A gate with room for all, over one bucket of requests or of tokens."""

    def __init__(self, unit: Unit) -> None:
        bucket = BucketPolicy("chat/caller", Per.CALLER, 1e9, 1e9, "1000000000 a second", unit)
        route = RoutePolicy("chat", QueuePolicy(10, 1.0), (2.0,), buckets=(bucket,))
        upstream = UpstreamPolicy("api", CapPolicy("upstream:api", 1000), None, None)
        policy = Policy(("normal",), {"chat": route}, {"api": upstream})
        self.gate = Gate(policy, MemoryStore(), BreakerMachine, lambda _: None)
        self.costs = Costs()
        self.telemetry = Telemetry(classes=("normal",), state=_nothing)
        self.dialect = dialect_named("openai")
        self.now = 1000.0
        self.result = Result(Outcome.SUCCEEDED)
        self.result.status, self.result.complete = 200, True

    def pass_one(self, body: bytes, answer: bytes, *, counts: bool) -> None:
        self.now += 0.001
        call = Call(route="chat", caller="agent", arrived_at=self.now)
        count: Count | None = None
        if counts:
            ask = self.dialect.read(body)
            call.model = ask.model
            size = size_of(body)
            count = Count(
                self.costs, self.telemetry, call, size, ask, prices=None, input_only=False, may_ask=False
            )
        grant = self.gate.offer(call, "api", self.now)
        assert isinstance(grant, Grant)
        if count is None:
            self.gate.settle(grant, Outcome.SUCCEEDED, self.now)
            return
        meter = count.begin("api", asked=False)
        meter.begin(200, JSON)
        meter.take(answer)
        count.result = self.result
        self.gate.settle(grant, Outcome.SUCCEEDED, self.now, used=count.used())


def _nothing() -> GateState:
    raise RuntimeError("nobody scrapes here")


def passes(door: Door, body: bytes, answer: bytes, *, counts: bool) -> float:
    """Microseconds of one call."""
    begin = perf_counter_ns()
    for _ in range(EVENTS):
        door.pass_one(body, answer, counts=counts)
    return (perf_counter_ns() - begin) / EVENTS / 1000


def measure(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The least of each way, in rounds that take each once."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(way())
    return {name: min(times) for name, times in taken.items()}


def ways_of_an_event() -> dict[str, Callable[[], float]]:
    """How an event passes; the first is the measure of the others."""
    plain, with_null = EVENT % b"", EVENT % b',"usage":null'
    return {
        "an event": lambda: stream(None, plain),
        "counted": lambda: stream(Meter(), plain),
        "asked for": lambda: stream(Meter(Remover()), with_null),
    }


def ways_of_a_call(size: int) -> dict[str, Callable[[], float]]:
    """How a call passes with a prompt of so many bytes; the first is the measure of the others."""
    text = (b"Say what there is room for. " * (size // 28 + 1))[:size]
    body, answer = ASK % text, ANSWER % (b"There is room. " * 20)
    requests, tokens = Door(Unit.REQUESTS), Door(Unit.TOKENS)
    return {
        f"a call of {size} bytes": lambda: passes(requests, body, answer, counts=False),
        "counted": lambda: passes(tokens, body, answer, counts=True),
    }


def table(rounds: int) -> list[tuple[str, float, float]]:
    """Name, microseconds, and the ratio to the first of its group."""
    rows: list[tuple[str, float, float]] = []
    for ways in (ways_of_an_event(), ways_of_a_call(1_000), ways_of_a_call(60_000)):
        found = measure(ways, rounds)
        first = next(iter(found.values()))
        rows += [(name, taken, taken / first) for name, taken in found.items()]
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options: Any = parser.parse_args(arguments)
    gc.disable()
    compiled = not str(gate_module.__file__).endswith(".py")
    print(
        f"Counting tokens, {'compiled' if compiled else 'interpreted'}: microseconds, and the ratio to none"
    )
    for name, taken, ratio in table(options.rounds):
        print(f"  {name:<24}{taken:9.2f}{ratio:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
