"""How an answer goes out: whole, event by event, cut midway, or as an error in the call's own dialect."""

from __future__ import annotations

import math

from proxy.demo.answers import JSON, Answer, Stream
from proxy.demo.ledger import Ending
from proxy.demo.wire import Wire

Headers = tuple[tuple[bytes, bytes], ...]


async def deliver(wire: Wire, answer: Answer, *, gap_s: float = 0.0, is_cut: bool = False) -> Ending:
    """Send `answer`, or half of it followed by a reset. Raises CallerLeftError."""
    if answer.stream is not None:
        await wire.start(answer.status, [(b"content-type", answer.content_type), *answer.headers])
        return await _deliver_stream(wire, answer, answer.stream, gap_s, is_cut=is_cut)
    body = answer.body
    answer.written_tokens = answer.output_tokens
    if is_cut:
        if body:
            await wire.start(answer.status, _headers(answer.content_type, body, answer.headers))
            await wire.write(body[: len(body) // 2])
        return await _cut(wire)
    if body:
        await wire.start(answer.status, _headers(answer.content_type, body, answer.headers))
    else:
        # RFC 9110 §8.6: no Content-Length in a 204.
        length = () if answer.status == 204 else ((b"content-length", b"0"),)
        await wire.start(answer.status, [*length, *answer.headers])
    await wire.write(body, last=True)
    return Ending.DONE if answer.status < 400 else Ending.FAILED


async def fail(wire: Wire, answer: Answer, status: int, message: str) -> Ending:
    """Send an error instead of `answer`. Raises CallerLeftError."""
    await _send_error(wire, answer, status, message, ())
    return Ending.FAILED


async def refuse(wire: Wire, answer: Answer, retry_after_s: float, more: Headers = ()) -> Ending:
    """Send a 429 instead of `answer`. Raises CallerLeftError."""
    milliseconds = round(retry_after_s * 1000)
    headers = (
        (b"retry-after", b"%d" % math.ceil(milliseconds / 1000)),
        (b"retry-after-ms", b"%d" % milliseconds),
        *more,
    )
    await _send_error(wire, answer, 429, "Rate limit reached. Please try again later.", headers)
    return Ending.REFUSED


async def _send_error(wire: Wire, answer: Answer, status: int, message: str, headers: Headers) -> None:
    body = answer.error_body(status, message)
    await wire.start(status, _headers(JSON, body, headers))
    await wire.write(body, last=True)


async def _deliver_stream(
    wire: Wire, answer: Answer, stream: Stream, gap_s: float, *, is_cut: bool
) -> Ending:
    unsent = stream.head
    answer.written_tokens = max(0, answer.output_tokens - stream.count)  # thought, before the first word
    for index, event in enumerate(stream.events):
        if index:
            await wire.pause(gap_s)
        if is_cut and index == stream.count // 2:
            await wire.write(unsent + event[: len(event) // 2])
            return await _cut(wire)
        await wire.write(unsent + event)
        answer.written_tokens = min(answer.written_tokens + 1, answer.output_tokens)
        unsent = b""
    if is_cut:
        await wire.write(unsent + stream.tail[: len(stream.tail) // 2])
        return await _cut(wire)
    await wire.write(unsent + stream.tail, last=True)
    return Ending.DONE


async def _cut(wire: Wire) -> Ending:
    await wire.connection.close(reset=True)
    return Ending.CUT


def _headers(content_type: bytes, body: bytes, more: Headers) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *more]
