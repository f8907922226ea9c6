"""What the upstream can be made to do: its capacity, its speed and its ways to fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from proxy.demo.calling import ToolCall
from proxy.demo.provider import Limits

Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class _Mode(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=str.lower, tag_field="name"):
    """A way to answer, read once for each call: when it has arrived, and again when a hang ends."""


class Ok(_Mode, frozen=True):
    """Every call is answered."""


class Outage(_Mode, frozen=True):
    """No call is answered: the connection is closed or reset without a byte, or the answer is a 500."""

    answer: Literal["close", "reset", "500"] = "close"


class Brownout(_Mode, frozen=True):
    """Only `factor` of the slots (at least one) serve; `share` of the calls end as a 500 after their time."""

    share: Share = 0.1
    factor: Share = 0.3


class Hang(_Mode, frozen=True):
    """Calls are accepted and not answered until the mode is switched or their caller leaves."""


class Refuse(_Mode, frozen=True):
    """Every call is answered with 429, `Retry-After` (rounded up) and `retry-after-ms`."""

    retry_after_s: Seconds = 1.0


class Cut(_Mode, frozen=True):
    """Half of the answer is sent, then the connection is reset. A stream is cut within an event."""


Mode = Ok | Outage | Brownout | Hang | Refuse | Cut


@dataclass
class Behaviour:
    """How the upstream behaves. Every field may be assigned at any time and is checked then (ValueError).

    A call that finds no free slot waits its turn, first come first served; its service time starts when it
    has its slot. `latency_s` is that time: exact with `sigma` 0, else the median of a lognormal distribution
    drawn with `seed`. Above `knee` calls in flight (waiting ones included) every time grows: `congestion`.
    A plain answer comes after `latency_s`; a streamed one begins then and holds its slot for `stream_events`
    events, `event_gap_s` apart. With both times 0 no timer is started.

    `modes` holds for the tools that it names, in place of `mode`: one may hang while the others answer.
    `mcp_sse` frames the answers to MCP calls as an event stream, as most MCP servers do. `limits` are
    those of a provider, told with every answer to a model call (`provider.py`). `tool_bytes` pads
    the answers of REST tools to at least that size. Models tell `cached` of their input as read from a cache.
    `calls` is the tool that the model calls where it is offered, before it answers in words.
    """

    slots: Count = 8
    latency_s: Seconds = 0.1
    sigma: Annotated[float, Meta(ge=0, le=5)] = 0.0
    knee: Count | None = None
    stream_events: Annotated[int, Meta(ge=0, le=1_000_000)] = 8
    event_gap_s: Seconds = 0.01
    seed: int = 0
    mode: Mode = Ok()  # noqa: RUF009 - frozen, without state
    modes: dict[str, Mode] = field(default_factory=dict)
    mcp_sse: bool = False
    limits: Limits | None = None
    tool_bytes: Annotated[int, Meta(ge=0, le=64 * 1024 * 1024)] = 0
    cached: Share = 0.0
    calls: ToolCall | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Check one field and tell the watchers, so that a waiting or hung call sees the change at once."""
        object.__setattr__(self, name, checked(name, msgspec.to_builtins(value)))
        for tell in self.__dict__.get("_watchers", ()):
            tell()

    def watch(self, tell: Callable[[], None]) -> None:
        """Call `tell` after each change of a field."""
        self.__dict__.setdefault("_watchers", []).append(tell)

    def take(self, other: Behaviour) -> None:
        """Become like `other`, field by field."""
        for each in fields(other):
            setattr(self, each.name, getattr(other, each.name))

    def mode_of(self, tool: str) -> Mode:
        """The mode in which a call of this tool (or of none, "") is answered."""
        return self.modes.get(tool, self.mode)

    def served_at_once(self) -> int:
        """The slots that serve in the present mode."""
        if isinstance(self.mode, Brownout):
            return max(1, int(self.slots * self.mode.factor))
        return self.slots

    def cached_of(self, tokens: int) -> int:
        """How many of these tokens of input are told as read from a cache."""
        return int(tokens * self.cached)

    def congestion(self, in_flight: int) -> float:
        """The factor by which times grow with `in_flight` calls: 1 up to the knee.

        1 + x + 4/3 x², x = calls above the knee as a part of the knee. With slots to spare the throughput is
        100 % at the knee, 60 % at twice and 25 % at four times as many calls; with a knee of 32 this is
        1 + m/32 + m²/768, the model U2 of reference/overload-control.md.
        """
        if self.knee is None or in_flight <= self.knee:
            return 1.0
        excess = in_flight / self.knee - 1.0
        return 1.0 + excess + excess * excess * 4.0 / 3.0


_TYPES = get_type_hints(Behaviour, include_extras=True)
CAPACITY_FIELDS = tuple(name for name in _TYPES if name not in ("mode", "modes"))


def checked(name: str, value: object) -> Any:
    """`value`, of JSON types, as what the field `name` holds. Raises ValueError that names the field."""
    try:
        return msgspec.convert(value, _TYPES[name])
    except KeyError:
        raise ValueError(f"no field is called {name!r}; there are: {', '.join(_TYPES)}") from None
    except msgspec.ValidationError as exc:
        raise ValueError(f"{name}: {exc}") from exc
