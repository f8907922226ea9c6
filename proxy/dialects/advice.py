"""The advice of a refusal: in a header, among the facts of a body, and as one more sentence.

The header is a Dictionary of RFC 9651: `smaller_output=512, fewer_parallel=4`. A body has the same members. A
final body and its text hold no digit, and no name, in which there may be one (reference/clients.md,
finding 4): there a member is null where the header has its value.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from proxy.core.advice import Advice
from proxy.dialects.base import Ask, Headers
from proxy.dialects.printable import printable

HEADER: Final = b"x-backpressure-advice"

EDIT_TOKENS: Final = 16
"""What a body may grow by when it states how much output it allows: as many tokens as `NEAR_BYTES` are."""

LEAST_OUTPUT: Final = 16
"""OpenAI's Responses refuse a `max_output_tokens` below 16."""


def members(advice: Advice) -> dict[str, int | str | bool]:
    """What is known, by the name it has in header and body."""
    known: dict[str, int | str | bool] = {}
    if advice.output:
        known["smaller_output"] = advice.output
    if advice.tokens:
        known["most_tokens"] = advice.tokens
    if advice.parallel:
        known["fewer_parallel"] = advice.parallel
    if advice.route:
        known["other_route"] = printable(advice.route)
    if advice.model:
        known["cheaper_model"] = printable(advice.model)
    if advice.stop:
        known["stop"] = True
    return known


def in_line(advice: Advice) -> str:
    """The Dictionary; "" where nothing is known."""
    return ", ".join([_item(name, value) for name, value in members(advice).items()])


def add_header(headers: Headers, advice: Advice) -> None:
    """The advice as a header, where there is any."""
    told = in_line(advice)
    if told:
        headers.append((HEADER, told.encode()))


def _item(name: str, value: int | str | bool) -> str:
    if value is True:
        return name
    if isinstance(value, str):
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'{name}="{quoted}"'
    return f"{name}={value}"


def without_values(advice: Advice) -> dict[str, object]:
    """For a final body: the names alone, and what is no number."""
    return {name: True if value is True else None for name, value in members(advice).items()}


def sentence_of(advice: Advice) -> str:
    """What to do, in numbers, for an answer that invites a return; begins with a blank, or is empty."""
    said = ""
    if advice.output:
        said += f" It would pass at once if it asked for at most {advice.output} tokens of output."
    elif advice.tokens:
        said += f" It would pass at once if it cost at most {advice.tokens} tokens in all."
    if advice.parallel == 1:
        said += " Make one call at a time."
    elif advice.parallel:
        said += f" Keep at most {advice.parallel} calls in flight."
    if advice.route:
        said += f" There is room now under {printable(advice.route)}."
    if advice.model:
        said += f" Where it will do, ask for {printable(advice.model)}."
    return said


def final_sentence_of(advice: Advice) -> str:
    """The same for a final answer, without a digit; begins with a blank, or is empty."""
    where = HEADER.decode()
    said = ""
    if advice.output:
        said += f" It can pass with less output: {where} says how much."
    elif advice.tokens:
        said += f" A smaller one can pass: {where} says how small."
    if advice.route:
        said += f" There is room elsewhere: {where} says where."
    return said


def output_that_fits(ask: Ask, tokens: int, input_tokens: float) -> int:
    """How many tokens of output to ask for, that a call which sends `input_tokens` costs `tokens` at most.

    0 where none would do, or its body states no bound of its output that is known here, so that another may
    not be either. Asked for several answers, each of them may have so many.
    """
    if ask.allowed is None:
        return 0
    each = (tokens - EDIT_TOKENS - ceil(input_tokens)) // ask.answers
    return each if each >= LEAST_OUTPUT else 0
