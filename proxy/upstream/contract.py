"""What the relay is given and what it gives back: the request, the caller's side of it, and the result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.core.verdict import FAILED, Outcome, Reason, Refusal

if TYPE_CHECKING:
    from proxy.upstream.ear import Ear

Headers = list[tuple[bytes, bytes]]

SAFE_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""They ask for no change (RFC 9110 §9.2.1): to send such a request twice does no harm."""

ONE_READ_BYTES: Final = 256 * 1024
"""uvloop reads so much at once. What is within the limit of a connection's writes is sent at the end of a
turn, with all the others': an upstream that is awake then need not be woken for each, which else is a sixth
of the price of a prompt of 100 kB."""

CROWDED: Final = (503, 529)
UPSTREAM_TIMEOUT: Final = Reason.UPSTREAM_TIMEOUT
"""For the speed of `is`, as `verdict.SUCCEEDED`."""


class CallerGone(Exception):
    """The caller disconnected, or broke off the request it had begun to send."""


class UnsendableRequest(ValueError):
    """The request cannot be forwarded without ambiguity; the message is for the caller. Nothing was sent."""


class Downstream(ABC):
    """The caller's side of one exchange. A base class, for compiled code calls a protocol's methods by name.

    `next_body`, `write` and `drained` raise CallerGone. Both coroutines may be cancelled at any await.
    """

    @abstractmethod
    async def next_body(self) -> bytes | memoryview | None:
        """The next piece of the request's body, None at its end."""
        ...

    @property
    @abstractmethod
    def slow(self) -> bool:
        """Has enough been written that the caller has not taken yet? Then wait until it is `drained`."""
        ...

    @abstractmethod
    def start(self, status: int, headers: Headers) -> None:
        """The head of the answer."""
        ...

    @abstractmethod
    def write(self, piece: bytes) -> None:
        """A piece of the answer's body."""
        ...

    @abstractmethod
    async def drained(self) -> None:
        """Return once the caller has taken enough of what was written."""
        ...

    @abstractmethod
    def flush(self) -> None:
        """Nothing follows at once: what was handed over leaves now."""
        ...

    @abstractmethod
    def end(self) -> None:
        """The answer is complete. Not called for an answer that was cut."""
        ...

    @abstractmethod
    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` from the loop when the caller disconnects; at once if it has. None: no longer."""
        ...


class Request:
    """One request as it came, with the target already rewritten for the upstream.

    `target` is path and query as they are sent, byte for byte. `headers` are the caller's, names in lower
    case. `body` is the whole body, or None to pull it from the caller piece by piece; `length` is its
    declared length, None with `has_body` meaning chunked. `peer` is the caller's address or b"".
    """

    __slots__ = ("body", "has_body", "headers", "length", "method", "peer", "scheme", "target")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: bytes | memoryview | None = None,
        length: int | None = None,
        has_body: bool = False,
        peer: bytes = b"",
        scheme: str = "http",
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.length = length
        self.has_body = has_body
        self.peer = peer
        self.scheme = scheme


class Result:
    """How an exchange ended.

    `reason` and `detail` say what went wrong with the upstream; `detail` is for the log and names no host.
    `started`: something of the answer was handed to the caller. `complete`: all of it. Neither: the caller
    still waits for an answer. Started but not complete: the caller must be cut. `gone`: the caller left, or
    stalled for longer than `idle_s`; it gets no answer, and its connection should be closed. `sent`: there
    was a connection for the request; without, the upstream has seen nothing of it.
    `first_byte_s` runs from the request sent to the head of the answer; None without one. `silent_s` is how
    long the upstream let the call wait for that head, or in vain: to connect, and from the request sent on.
    No wait for the caller is in it.
    `answered_bytes` are those of the answer's body that were handed on.
    `retry_after_s` is what the upstream itself asked for, with a 429, 503 or 529. `ear` hears what it says of
    its allowances (None: nobody wants to know); `told` is what a caller was told in place of its own time.
    """

    __slots__ = (
        "answered_bytes",
        "complete",
        "detail",
        "ear",
        "first_byte_s",
        "gone",
        "outcome",
        "reason",
        "retry_after_s",
        "reused",
        "sent",
        "silent_s",
        "started",
        "status",
        "told",
    )

    def __init__(self, outcome: Outcome = FAILED) -> None:
        self.outcome = outcome
        self.status: int | None = None
        self.reason: Reason | None = None
        self.detail = ""
        self.started = False
        self.complete = False
        self.gone = False
        self.reused = False
        self.sent = False
        self.first_byte_s: float | None = None
        self.silent_s = 0.0
        self.retry_after_s: float | None = None
        self.answered_bytes = 0
        self.ear: Ear | None = None
        self.told: Refusal | None = None

    @property
    def crowded(self) -> bool:
        """Did the upstream say that it had no room for the call, or nothing in time?"""
        return self.status in CROWDED or self.reason is UPSTREAM_TIMEOUT

    def __repr__(self) -> str:
        """As a test and a log reader want to see it."""
        flags = [flag for flag in ("started", "complete", "gone", "reused") if getattr(self, flag)]
        why = f" {self.reason}: {self.detail}" if self.reason else f" {self.detail}" if self.detail else ""
        return f"<Result {self.outcome} {self.status or '-'} {' '.join(flags) or 'unanswered'}{why}>"
