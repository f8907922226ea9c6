"""What an upstream says of its own allowances in the head of an answer, in all the forms that were found.

    x-ratelimit-{limit,remaining,reset}-{requests,tokens}       OpenAI, Groq, Azure, Together, Fireworks
    …-{requests,tokens}-{minute,hour,day}, …-req-{minute,…}     Cerebras, Mistral
    anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}
    x-ratelimit-{limit,remaining,reset}, x-rate-limit-…         OpenRouter, GitHub and most of the rest
    ratelimit-{limit,remaining,reset}; ratelimit, ratelimit-policy   the IETF's drafts, to 06 and from 07 on
    ratelimitbysize-{limit,remaining,reset}                     Mistral's tokens
    retry-after, retry-after-ms, x-ms-retry-after-ms, x-should-retry

What is not understood is not there. OpenAI's and Anthropic's allowances refill all the time, as both write
(platform.openai.com/docs/guides/rate-limits, docs.anthropic.com/en/api/rate-limits); what is told by the
other forms is taken to come back all at once.
"""

from __future__ import annotations

import re
from itertools import product
from typing import Final

from proxy.core.word import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKENS, Said, Word
from proxy.upstream.contract import Headers
from proxy.upstream.retry_after import retry_after_s
from proxy.upstream.spans import instant_of, number, span_s

MOST: Final = 1e12
"""No allowance is larger: what is, is somebody's word for none."""

MOST_POLICIES: Final = 4
"""Of a `RateLimit` field, the first so many."""

MOST_CHARS: Final = 512

LIMIT, REMAINING, RESET = "limit", "remaining", "reset"

Field = tuple[str, str, str, bool, float]
"""Which of the three it is, unit, name, does it refill, and how long its window is (0.0: by the reset)."""

_WINDOWS: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0, "month": 30 * 86_400.0}


def _fields() -> dict[bytes, Field]:
    known: dict[str, Field] = {}
    units = {"requests": REQUESTS, "req": REQUESTS, "tokens": TOKENS}
    for what, (word, unit) in product((LIMIT, REMAINING, RESET), units.items()):
        known[f"x-ratelimit-{what}-{word}"] = (what, unit, unit, True, 0.0)
        for window, seconds in _WINDOWS.items():
            name = f"{unit} a {window}"
            known[f"x-ratelimit-{what}-{word}-{window}"] = (what, unit, name, False, seconds)
    for what in (LIMIT, REMAINING, RESET):
        for unit in (REQUESTS, TOKENS, INPUT_TOKENS, OUTPUT_TOKENS):
            of = unit.replace(" ", "-")
            known[f"anthropic-ratelimit-{of}-{what}"] = (what, unit, unit, True, 0.0)
        for prefix in ("x-ratelimit", "x-rate-limit", "ratelimit"):
            known[f"{prefix}-{what}"] = (what, REQUESTS, REQUESTS, False, 0.0)
        for prefix in ("ratelimitbysize", "x-ratelimitbysize"):
            known[f"{prefix}-{what}"] = (what, TOKENS, TOKENS, False, 0.0)
    return {name.encode(): field for name, field in known.items()}


FIELDS: Final = _fields()
STRUCTURED: Final = frozenset({b"ratelimit", b"ratelimit-policy"})


def word_of(status: int, headers: Headers, wall: float) -> Word | None:
    """What the head of an answer says; None where that is nothing. `wall` is Unix time.

    Instants are measured from the answer's own Date, where it has one, as for `retry_after_s`.
    """
    refused = status == 429
    told = [field for field in headers if field[0] in FIELDS or field[0] in STRUCTURED]
    if not (told or refused):
        return None
    said = _said(told, _date_of(headers, wall))
    if not (said or refused):
        return None
    wait_s = retry_after_s(headers, wall) if refused else None
    return Word(said, refused=refused, wait_s=wait_s, final=(b"x-should-retry", b"false") in headers)


def _said(told: Headers, now: float) -> list[Said]:
    found: dict[str, _Found] = {}
    structured: dict[bytes, str] = {}
    for name, value in told:
        if len(value) > MOST_CHARS:
            continue
        if name in FIELDS:
            _take(found, FIELDS[name], value.decode("latin-1"), now)
        else:
            structured[name] = value.decode("latin-1")
    said = [each for one in found.values() if (each := one.said()) is not None]
    return said + _structured(structured.get(b"ratelimit", ""), structured.get(b"ratelimit-policy", ""))


def _date_of(headers: Headers, wall: float) -> float:
    for name, value in headers:
        if name == b"date":
            instant = instant_of(value.decode("latin-1"))
            return wall if instant is None else instant
    return wall


class _Found:
    """The three fields of one allowance, as far as they were there."""

    __slots__ = ("field", "limit", "remaining", "reset_s")

    def __init__(self, field: Field) -> None:
        self.field = field
        self.limit: float | None = None
        self.remaining: float | None = None
        self.reset_s: float | None = None

    def said(self) -> Said | None:
        if self.remaining is None:
            return None
        _, unit, name, refills, window_s = self.field
        reset_s = self.reset_s
        if reset_s is None and window_s:
            reset_s = window_s  # at the latest
        limit = None if self.limit is None else max(self.limit, self.remaining)
        # Without a whole there is no telling how fast it refills.
        return Said(unit, self.remaining, reset_s, limit, refills=refills and bool(limit), name=name)


def _take(found: dict[str, _Found], field: Field, text: str, now: float) -> None:
    what, _, name, _, _ = field
    one = found.get(name)
    if one is None:
        one = found[name] = _Found(field)
    if what == RESET:
        seconds = span_s(text, now)
        if seconds is not None:
            one.reset_s = seconds if one.reset_s is None else min(one.reset_s, seconds)
        return
    amount = _amount(text)
    if amount is None:
        return
    if what == LIMIT:
        one.limit = amount or None  # of nothing: not in use
    else:
        one.remaining = amount if one.remaining is None else min(one.remaining, amount)


def _amount(text: str) -> float | None:
    """A number of calls or tokens; of a list (`100, 100;w=60`) the first. Overdrawn is nothing left."""
    text = re.split("[,;]", text, maxsplit=1)[0].strip()
    if text.startswith("-") and number(text[1:]) is not None:
        return 0.0
    amount = number(text)
    return None if amount is None or amount > MOST else amount


def _structured(told: str, policy: str) -> list[Said]:
    """`RateLimit` of the IETF's drafts: `limit=100, remaining=50, reset=30`, or `"name";r=50;t=30, …`."""
    if not told:
        return []
    if "remaining=" in told and '"' not in told:
        members = dict(part.strip().partition("=")[::2] for part in told.split(","))
        remaining = _amount(members.get("remaining", ""))
        if remaining is None:
            return []
        limit, reset = _amount(members.get("limit", "")), number(members.get("reset", "").strip())
        return [_of_window(REQUESTS, remaining, reset, limit)]
    policies = {name: members for name, members in _items(policy)}  # noqa: C416 - mypyc
    said = []
    for name, members in _items(told):
        remaining = _amount(members.get("r", ""))
        if remaining is None:
            continue
        known = policies.get(name, {})
        reset = number(members.get("t", ""))
        window = number(known.get("w", ""))
        unit = TOKENS if "token" in known.get("qu", "") or "token" in name else REQUESTS
        each = _of_window(unit, remaining, window if reset is None else reset, _amount(known.get("q", "")))
        each.name = f"{each.unit} ({name})" if name else each.unit
        said.append(each)
    return said


def _of_window(unit: str, remaining: float, reset_s: float | None, limit: float | None) -> Said:
    if reset_s is not None:
        reset_s = min(reset_s, _WINDOWS["month"])
    return Said(unit, remaining, reset_s, None if limit is None else max(limit, remaining))


def _items(text: str) -> list[tuple[str, dict[str, str]]]:
    """The items of a list of structured fields (RFC 9651), each with its parameters, as text."""
    items = []
    # A comma within quotes makes two broken items of one, which say nothing: names have none.
    for item in text.split(",")[:MOST_POLICIES]:
        name, *parameters = item.split(";")
        members = dict(each.strip().partition("=")[::2] for each in parameters)
        items.append(
            (name.strip().strip('"')[:40], {key: value.strip('"') for key, value in members.items()})
        )
    return items
