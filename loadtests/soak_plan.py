"""What a soak sets out to do: the calls and the load they make, the configuration, the faults.

Pure: everything here follows from the arguments and a seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal

LOAD: Final = 0.8
"""First attempts offered, as a part of what the upstream can serve; retries come on top."""

BIG_BYTES: Final = 100_000
CALLERS: Final = 20
GREEDY_PART: Final = 0.1
"""Of all calls, from one caller: more than its bucket lets through."""
BUCKET_PART: Final = 0.08
"""Of the rate, for each caller: the 19 others, at 0.047 each, stay below it while nothing fails."""

PRIORITIES: Final = {"critical": 10, "normal": 60, "background": 30}
"""Class and its part of the calls."""

CHAT: Final = "/openai/v1/chat/completions"
TOOL: Final = "/mcp"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of call and its part of all. `leaves` says where its caller disconnects, if it does."""

    name: str
    part: int
    path: str = CHAT
    is_streamed: bool = False
    prompt_bytes: int = 300
    leaves: Literal["", "upload", "waiting", "answer"] = ""


KINDS: Final = (
    Kind("plain", 40),
    Kind("stream", 20, is_streamed=True),
    Kind("big", 10, prompt_bytes=BIG_BYTES),
    Kind("tool", 15, path=TOOL),
    Kind("leaves in its upload", 5, prompt_bytes=BIG_BYTES, leaves="upload"),
    Kind("leaves while it waits", 5, leaves="waiting"),
    Kind("leaves in its stream", 5, is_streamed=True, leaves="answer"),
)

FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"name": "outage", "answer": "close"},
    {"name": "outage", "answer": "reset"},
    {"name": "outage", "answer": "500"},
    {"name": "brownout", "share": 0.3, "factor": 0.3},
    {"name": "hang"},
    {"name": "refuse", "retry_after_s": 1.0},
    {"name": "cut"},
)
"""As `POST /_demo/mode` takes them. A round of the schedule has each of them once."""

ROUND_S: Final = 75.0


@dataclass(frozen=True, slots=True)
class Fault:
    """The upstream is in `mode` from `begins_s` to `ends_s`, counted from the start of the load."""

    begins_s: float
    ends_s: float
    mode: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """One soak. The upstream serves `slots` calls at once, each `latency_s` long, streams longer."""

    seconds: float
    slots: int = 48
    latency_s: float = 0.1
    events: int = 20
    gap_s: float = 0.02
    seed: int = 1

    @property
    def rate_per_s(self) -> float:
        """First attempts to offer. Who leaves early counts as if it stayed: the load is a little less."""
        return LOAD * self.slots * sum(kind.part for kind in KINDS) / sum(map(self._work_s, KINDS))

    @property
    def tool_cap(self) -> int:
        """The slots of the upstream that its tools get: their part of the work."""
        tools = sum(self._work_s(kind) for kind in KINDS if kind.path == TOOL)
        return max(1, round(self.slots * tools / sum(map(self._work_s, KINDS))))

    @property
    def model_cap(self) -> int:
        return self.slots - self.tool_cap

    @property
    def rounds(self) -> int:
        return max(1, round(self.seconds / ROUND_S))

    @property
    def span_s(self) -> float:
        """The time in which one fault comes and goes."""
        return self.seconds / (self.rounds * len(FAULTS))

    def faults(self) -> Iterator[Fault]:
        """Each fault once a round, order and times drawn with the seed; the last ends before the load."""
        chance = Random(self.seed)
        for turn in range(self.rounds):
            for number, mode in enumerate(chance.sample(FAULTS, len(FAULTS))):
                begins_s = (turn * len(FAULTS) + number + chance.uniform(0.05, 0.3)) * self.span_s
                yield Fault(begins_s, begins_s + chance.uniform(0.3, 0.6) * self.span_s, mode)

    def proxy_yaml(self, data_port: int, control_port: int, upstream: str) -> str:
        """Caps, queues, a bucket for each caller, breakers and retry budgets, all on.

        Every span is a part of a fault's, so that each fault trips what it should and is recovered from.
        """
        soon_ms, rate = max(50, round(self.span_s * 100)), BUCKET_PART * self.rate_per_s
        behaviour = f"""\
    timeouts: {{connect: 1s, first_byte: {soon_ms + round(self.latency_s * 1000)}ms, idle: 5s}}
    breaker: {{window: {10 * soon_ms}ms, minimum_calls: 10, open_for: {soon_ms}ms, probes: 2}}
    retry_budget: {{ratio: 0.2, floor: 60 per minute}}
    connections: {{idle_for: {2 * soon_ms}ms}}
"""
        rules = f"""\
    buckets: [{{rate: {rate * 60:.0f} requests/minute, burst: {max(1, round(rate))}, per: caller}}]
    queue: {{size: {2 * self.slots}, max_age: {2 * soon_ms}ms}}
"""
        return f"""\
listen: 127.0.0.1:{data_port}
admin: {{listen: 127.0.0.1:{control_port}}}
drain: 1s
upstreams:
  model:
    url: {upstream}
    dialect: openai
    concurrency: {self.model_cap}
{behaviour}\
  notes:
    url: {upstream}/mcp
    dialect: mcp
    concurrency: {self.tool_cap}
{behaviour}\
routes:
  - name: chat
    path: /openai/
    upstream: model
{rules}\
  - name: notes
    path: /mcp
    upstream: notes
{rules}"""

    def _work_s(self, kind: Kind) -> float:
        return kind.part * (self.latency_s + kind.is_streamed * self.events * self.gap_s)


def request(
    kind: Kind, caller: int, priority: str, number: int, attempt: int, *, keep: bool
) -> tuple[bytes, bytes]:
    """Head and body of one attempt. All attempts of a call have one body, and no two calls have.

    Every one is a POST, which a proxy may not send twice.
    """
    words = f"{number} " + "word " * (kind.prompt_bytes // 5)
    body: dict[str, Any]
    if kind.path == TOOL:
        params = {"name": "search", "arguments": {"query": words}}
        body = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    else:
        body = {"model": "demo-model", "messages": [{"role": "user", "content": words}]}
        body |= {"stream": True} if kind.is_streamed else {}
    content = json.dumps(body).encode()
    lines = [
        f"POST {kind.path} HTTP/1.1",
        "host: proxy",
        "content-type: application/json",
        "accept: application/json, text/event-stream",
        f"content-length: {len(content)}",
        f"x-caller-id: caller-{caller}",
        f"x-priority: {priority}",
        f"x-stainless-retry-count: {attempt}",
        f"connection: {'keep-alive' if keep else 'close'}",
    ]
    return "\r\n".join([*lines, "", ""]).encode(), content
