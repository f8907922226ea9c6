"""What every dialect turns a request into: an answer, ready to be sent once its time has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

JSON: Final = b"application/json"
EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"

encode = msgspec.json.encode


class Request(NamedTuple):
    """A request whose body is complete. `path` and `query` are as received, header names in lower case."""

    number: int
    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    body: bytes


@dataclass(frozen=True, slots=True)
class Stream:
    """A streamed answer: `head` with the first of `count` events, one at a time, `tail` with the last."""

    head: bytes
    events: Iterator[bytes]
    count: int
    tail: bytes


class Answer:
    """An answer and what the ledger should know of the call.

    `is_work` says whether the call takes a slot and time. `error_body` renders an error (status, message) in
    the call's own dialect, for the modes that let it fail. It costs `input_tokens`, and `output_tokens` when
    all of it is written; `written_tokens` are so far.
    """

    __slots__ = (
        "body",
        "content_type",
        "error_body",
        "headers",
        "input_tokens",
        "is_work",
        "model",
        "output_tokens",
        "status",
        "stream",
        "tool",
        "written_tokens",
    )

    def __init__(
        self,
        error_body: Callable[[int, str], bytes],
        body: bytes = b"",
        *,
        status: int = 200,
        content_type: bytes = JSON,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        stream: Stream | None = None,
        is_work: bool = False,
        model: str = "",
        tool: str = "",
        tokens: tuple[int, int] = (0, 0),
    ) -> None:
        self.error_body = error_body
        self.body = body
        self.status = status
        self.content_type = content_type
        self.headers = headers
        self.stream = stream
        self.is_work = is_work
        self.model = model
        self.tool = tool
        self.input_tokens, self.output_tokens = tokens
        self.written_tokens = 0


def failed(error_body: Callable[[int, str], bytes], status: int, message: str, **more: str) -> Answer:
    """An error answer, given at once: the request itself is at fault."""
    allow = tuple((name.encode(), value.encode()) for name, value in more.items())
    return Answer(error_body, error_body(status, message), status=status, headers=allow)


def tokens_of(body: bytes) -> int:
    """Input tokens of a request by the rule of thumb, four bytes a token: the same for equal bodies."""
    return max(1, len(body) // 4)


_WORDS: Final = ("There", " is", " room", " for", " every", " call", " that", " waits", " its", " turn", ".")


def word(index: int) -> str:
    """The `index`th word of any answer: one output token, safe to put into JSON as it is."""
    return _WORDS[index % len(_WORDS)]
