"""One more try for a call whose answer has not begun: what it takes, and how the first answer waits for it.

Off unless a route asks for it. Nothing is known here of budgets or room: a retry asks the gate like any call.
"""

from __future__ import annotations

import time
from typing import Final

from proxy.core.verdict import FAILED, OVERLOADED, Reason
from proxy.upstream.contract import SAFE_METHODS, Downstream, Headers, Result
from proxy.upstream.passing import Passing
from proxy.upstream.retry_after import retry_after_s

MOST_HELD_BYTES: Final = 64 * 1024
"""A longer answer is passed on as it comes, whatever its status: an error says less.
nginx and Envoy throw the first answer away unread; here it is the caller's if no better one comes."""

IDEMPOTENCY_KEY: Final = b"idempotency-key"
"""With it a caller says that its call may come twice (draft-ietf-httpapi-idempotency-key-header). No SDK of a
model sends it unasked (reference/clients.md)."""


class Retries:
    """When a call is sent once more. `connect`: nothing was sent. `reset`: it was, and no answer began.

    `timeout`: neither did one in time. `statuses`: an answer with one of these did. `every_call`: also what
    may do a thing twice, or be charged twice. The pause is at most `backoff_s`, by chance; on top comes what
    the upstream itself asks for; where that is more than `longest_told_s`, there is no retry.
    """

    __slots__ = (
        "backoff_s", "connect", "every_call", "longest_told_s", "reset", "statuses", "timeout",
    )  # fmt: skip

    def __init__(
        self,
        *,
        connect: bool,
        reset: bool,
        timeout: bool,
        statuses: frozenset[int],
        every_call: bool,
        backoff_s: float,
        longest_told_s: float,
    ) -> None:
        self.connect = connect
        self.reset = reset
        self.timeout = timeout
        self.statuses = statuses
        self.every_call = every_call
        self.backoff_s = backoff_s
        self.longest_told_s = longest_told_s

    def cover(self, result: Result) -> bool:
        """Did an attempt end in one of these ways? Its caller must be there, and must have got nothing of it.

        What says nothing about the upstream is not repeated: a deadline that passed, no room of our own.
        """
        if result.outcome is not FAILED and result.outcome is not OVERLOADED:
            return False
        if not result.sent:
            return self.connect
        if result.status is not None:
            return result.status in self.statuses
        return self.timeout if result.reason is Reason.UPSTREAM_TIMEOUT else self.reset

    def may_run_twice(self, method: bytes, headers: Headers) -> bool:
        """May a call be sent again that its upstream has got, for all we know?"""
        # PUT and DELETE are idempotent by the letter, and tools go by none.
        if self.every_call or method in SAFE_METHODS:
            return True
        return any(name == IDEMPOTENCY_KEY and value for name, value in headers)

    def pause_s(self, told_s: float | None, chance: float) -> float:
        """How long to wait: full jitter (`chance` from 0 to 1), behind what the upstream told everybody."""
        return (told_s or 0.0) + chance * self.backoff_s


class Held(Passing):
    """The caller's side of a first attempt. Holds back an answer that calls for another; passes on any other.

    While `holding`, nothing has reached the caller: leave it so, or `release` what was held.
    """

    __slots__ = (
        "_bytes", "_ended", "_headers", "_pieces", "_retries", "_status", "holding", "told_s",
    )  # fmt: skip

    def __init__(self, caller: Downstream, retries: Retries) -> None:
        super().__init__(caller)
        self._retries = retries
        self._status = 0
        self._headers: Headers = []
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._ended = False
        self.holding = False
        self.told_s: float | None = None

    def release(self) -> None:
        """Hand over what was held, and pass on what follows. Raises CallerGone."""
        self.holding = False
        self._caller.start(self._status, self._headers)
        for piece in self._pieces:
            self._caller.write(piece)
        self._pieces.clear()
        if self._ended:
            self._caller.end()

    def start(self, status: int, headers: Headers) -> None:
        """Hold it back, if it is to be and another may come soon."""
        if status in self._retries.statuses:
            self.told_s = retry_after_s(headers, time.time())
            if not self._is_final(headers):
                self._status, self._headers, self.holding = status, headers, True
                return
        self._caller.start(status, headers)

    def _is_final(self, headers: Headers) -> bool:
        """Does the upstream want no other so soon? Or is its answer too long to be kept?"""
        if self.told_s is not None and self.told_s > self._retries.longest_told_s:
            return True
        for name, value in headers:
            if name == b"x-should-retry" and value == b"false":
                return True
            if name == b"content-length" and value.isdigit() and int(value) > MOST_HELD_BYTES:
                return True
        return False

    def write(self, piece: bytes) -> None:
        """Keep a piece of what is held, as long as that is little. Raises CallerGone."""
        if not self.holding:
            self._caller.write(piece)
            return
        self._pieces.append(piece)
        self._bytes += len(piece)
        if self._bytes > MOST_HELD_BYTES:
            self.release()

    def end(self) -> None:
        """It is complete."""
        if self.holding:
            self._ended = True
        else:
            self._caller.end()

    @property
    def slow(self) -> bool:
        """What is held waits for nobody."""
        return not self.holding and self._caller.slow

    def flush(self) -> None:
        """As the caller's."""
        if not self.holding:
            self._caller.flush()
