"""What a request is likely to cost in tokens, by its body and by what was learnt of its model."""

from __future__ import annotations

from typing import Final

from proxy.core.costs import Costs
from proxy.core.used import Estimate
from proxy.dialects.base import Ask
from proxy.dialects.usage import MOST_TOKENS

UNKNOWN_INPUT: Final = 2048
"""Tokens of a request that does not declare its length: SDKs declare it, so this is seldom needed."""

FILE_TOKENS: Final = 765.0
"""Tokens of an image, or another file, in a request: those of one of 1024 x 1024 with OpenAI ("Images and
vision", high detail); Anthropic's own guide has up to 1,600."""

STEP_BYTES: Final = 1024
PROBE_BYTES: Final = 64
"""Of each step so many bytes are looked at: text of any language has a space, a quote or an escape in them,
base64 has none. What is shorter than two steps is taken for text, whatever it is."""

_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_="


class Size:
    """How long a request is: bytes of text, and files, which cost by the piece. `read`: it was looked at."""

    __slots__ = ("files", "read", "text_bytes")

    def __init__(self, text_bytes: int, files: int = 0, *, read: bool = True) -> None:
        self.text_bytes = text_bytes
        self.files = files
        self.read = read


def size_of(body: bytes) -> Size:
    """What of a body is text. Files in it are long runs of base64."""
    files = steps = 0
    within = False
    for at in range(STEP_BYTES, len(body) - PROBE_BYTES, STEP_BYTES):
        if body[at : at + PROBE_BYTES].translate(None, _BASE64):
            within = False
            continue
        steps += 1
        if not within:
            within = True
            files += 1
    return Size(len(body) - steps * STEP_BYTES, files)


def size_unread(length: int | None) -> Size:
    """That of a body that nobody reads, by its declared length; None: it declares none."""
    return Size(4 * UNKNOWN_INPUT if length is None else length, read=False)


def estimate(
    costs: Costs, caller: str, model: str, size: Size, ask: Ask | None, *, input_only: bool
) -> Estimate:
    """What a call is likely to cost, its input and, unless `input_only`, its output; at least 1.

    A bound of the output that its body states is taken for the output itself, as OpenAI's own limiter does,
    until it is learnt what answers come to.
    """
    text = min(max(1.0, costs.input_of(model, size.text_bytes)), MOST_TOKENS)
    given = min(text + size.files * FILE_TOKENS, MOST_TOKENS)
    sure = text if size.read else 0.0
    if input_only:
        return Estimate(given, 0.0, sure)
    allowed, answers = (ask.allowed, ask.answers) if ask is not None else (None, 1)
    taken = min(costs.output_of(caller, model, allowed) * answers, MOST_TOKENS)
    most = 0.0 if allowed is None else min(float(allowed) * answers, MOST_TOKENS)
    return Estimate(given, taken, sure, most)
