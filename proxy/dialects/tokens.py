"""What a model call costs in tokens: estimated when it comes, told by its answer when it ends.

The first form: the estimate goes by rules of thumb, and what the answer says corrects it. Bodies are passed
on unchanged, so that a stream of Chat Completions tells its usage only to who asks for it
(`stream_options.include_usage`); without it the estimate stands.
"""

from __future__ import annotations

from typing import Final

from proxy.dialects.base import Headers
from proxy.dialects.bodies import JSON_ERRORS
from proxy.dialects.usage import ASKED, MOST_TOKENS, TOLD, Told, Usage

BYTES_PER_TOKEN: Final = 4
"""OpenAI's rule of thumb for English ("What are tokens and how to count them"); its own limiter estimates by
characters too. JSON around the text makes it a little high, other scripts make it low."""

UNKNOWN_INPUT: Final = 2048
"""Tokens of a request that does not declare its length: SDKs declare it, so this is seldom needed."""

DEFAULT_OUTPUT: Final = 340
"""Tokens of an answer that nobody bounds: the mean of ShareGPT's is 338 (Kwon et al., "Efficient Memory
Management for Large Language Model Serving with PagedAttention", SOSP 2023, figure 11: 337.99)."""

MOST_BYTES: Final = 256 * 1024
"""An answer, or an event, longer than this is not read; its estimate stands. Only embeddings are so long, of
which the input is all that counts, and events that repeat a whole answer."""

_IDENTITY: Final = (b"accept-encoding", b"identity")

USAGE: Final = b'"usage"'
"""In JSON these bytes are a whole string and no part of one. Where they are a key of the outermost object,
and nowhere else, what follows is an object but for its brace: then what stands before need not be read."""

LONG_BEFORE: Final = 64

_UNREAD: Final = 0
_PLAIN: Final = 1
_STREAM: Final = 2


def estimate(length: int | None, body: bytes | None, *, input_only: bool) -> float:
    """Tokens that a call is likely to cost, its input and, unless `input_only`, its output; at least 1.

    `length` is the declared one, None where none was. `body` is given where it is here already: a bound of
    the output that it states is taken for the output itself, as OpenAI's own limiter does.
    """
    size = len(body) if body is not None else length
    tokens = UNKNOWN_INPUT if size is None else size // BYTES_PER_TOKEN
    if not input_only:
        tokens += _output(body)
    return float(min(max(1, tokens), MOST_TOKENS))


def _output(body: bytes | None) -> int:
    if body is None:
        return DEFAULT_OUTPUT
    try:
        asked = ASKED.decode(body)
    except JSON_ERRORS:
        return DEFAULT_OUTPUT  # not ours to complain of: the upstream reads it too
    each = DEFAULT_OUTPUT
    for most in (asked.max_tokens, asked.max_completion_tokens, asked.max_output_tokens):
        if most is not None:
            each = max(0, most)
    return min(each * max(1, asked.n or 1), MOST_TOKENS)


def readable(headers: Headers) -> Headers:
    """The same headers of a request, asking for an answer that a `Meter` can read: in no encoding.

    nginx needs the same for its `sub_filter`. Who names no encoding is sent none by any known server.
    """
    for name, _ in headers:
        if name == _IDENTITY[0]:
            return [field for field in headers if field[0] != name] + [_IDENTITY]
    return headers


class Meter:
    """Reads from one answer, as it passes, what the call has used. Holds `MOST_BYTES` of it at most.

    `begin` with its head, `take` each piece of its body, then ask `used`.
    """

    __slots__ = ("_bytes", "_form", "_held", "_input", "_output", "_skipping", "_status")

    def __init__(self) -> None:
        self._form = _UNREAD
        self._status = 0
        self._held: list[bytes] = []  # a plain answer so far, or an event's line that is not whole
        self._bytes = 0
        self._skipping = False  # the rest of a line that is too long
        self._input: int | None = None
        self._output: int | None = None

    def begin(self, status: int, headers: Headers) -> None:
        """The answer's head."""
        self._status = status
        for name, value in headers:
            if name == b"content-type":
                kind = value.lower()
                if kind.startswith(b"text/event-stream"):
                    self._form = _STREAM
                elif kind.startswith(b"application/json"):
                    self._form = _PLAIN
            elif name == b"content-encoding" and value.lower() != b"identity":
                self._form = _UNREAD  # it was asked to send none
                return

    def take(self, piece: bytes) -> None:
        """A piece of the answer's body."""
        if self._form == _STREAM:
            self._take_events(piece)
        elif self._form == _PLAIN:
            self._hold(piece)
            if self._skipping:
                self._form = _UNREAD

    def used(self) -> float | None:
        """Tokens used by a call whose answer is complete; None where it did not tell.

        An answer that is an error and tells nothing has used nothing: no provider counts tokens for it.
        """
        if self._form == _PLAIN:
            self._form = _UNREAD
            self._read(b"".join(self._held))
        if self._input is None and self._output is None:
            return 0.0 if self._status >= 400 else None
        return float((self._input or 0) + (self._output or 0))

    def _take_events(self, piece: bytes) -> None:
        end = len(piece) if piece.endswith(b"\n") else piece.rfind(b"\n") + 1
        if not end:
            self._hold(piece)
            return
        lines = piece if end == len(piece) else piece[:end]
        if self._held or self._skipping:
            if self._skipping:  # its end
                lines = lines[lines.index(b"\n") + 1 :]
            lines = b"".join([*self._held, lines])
            self._held.clear()
            self._bytes = 0
            self._skipping = False
        if end != len(piece):
            self._hold(piece[end:])
        if lines.find(b'"usage"') >= 0:  # as above: a fifth of what an event costs
            for line in lines.split(b"\n"):
                if line.startswith(b"data:") and b'"usage"' in line and not _is_null(line):
                    self._read(line[5:])

    def _hold(self, piece: bytes) -> None:
        self._bytes += len(piece)
        if self._skipping or self._bytes > MOST_BYTES:
            self._skipping = True
            self._held.clear()
        else:
            self._held.append(piece)

    def _read(self, told: bytes) -> None:
        usage = _usage_of(told)
        if usage is not None:
            # The events of a stream tell it bit by bit; each number is a running total, the last one counts.
            given, taken = _input_of(usage), _first(usage.completion_tokens, usage.output_tokens)
            self._input = self._input if given is None else given
            self._output = self._output if taken is None else taken


def _usage_of(told: bytes) -> Usage | None:
    """The usage that an answer or an event tells, or None."""
    at = told.rfind(USAGE)
    if at < 0:
        return None
    answer = _told(b"{" + told[at:]) if at > LONG_BEFORE else None
    if answer is not None:
        return answer.usage
    answer = _told(told)
    if answer is None:
        return None
    for inner in (answer.response, answer.message):
        if inner is not None and inner.usage is not None:
            return inner.usage
    return answer.usage


def _told(answer: bytes) -> Told | None:
    try:
        return TOLD.decode(answer)
    except JSON_ERRORS:
        return None  # not ours to complain of: the caller reads it too


def _is_null(line: bytes) -> bool:
    """Most events of a stream that will tell its usage at the end say so: `"usage":null`."""
    return b'"usage":null' in line and line.count(b'"usage"') == 1


def _input_of(usage: Usage) -> int | None:
    """Tokens read. Of Anthropic's cached ones those written count and those read do not, as in its own
    limits (ITPM); OpenAI's `prompt_tokens` hold the cached ones, and so do its limits (TPM)."""
    given = _first(usage.prompt_tokens, usage.input_tokens)
    if given is None or usage.cache_creation_input_tokens is None:
        return given
    written = _first(usage.cache_creation_input_tokens, None)
    return given + (written or 0)


def _first(one: int | None, other: int | None) -> int | None:
    """The first that was told and can be true."""
    for tokens in (one, other):
        if tokens is not None and 0 <= tokens <= MOST_TOKENS:
            return tokens
    return None
