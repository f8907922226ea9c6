"""One refusal per reason as the gate gives it, and how a refusal reads on the wire."""

from __future__ import annotations

from proxy.core.verdict import Kind, Reason, Refusal, kind_of
from proxy.dialects import Answer

FINAL = [reason for reason in Reason if kind_of(reason) in {Kind.STOP, Kind.NOT_AGAIN}]
STOPS = [reason for reason in Reason if kind_of(reason) is Kind.STOP]

UNBOOKED = [reason for reason in Reason if kind_of(reason) in {Kind.COME_BACK, Kind.UNAVAILABLE}]

HOSTILE = [
    "caller:429",
    "tool:rate limit/too many requests",
    "route:overloaded, try again later\r\nx-evil: 1",
    "caller:\ud800\x00\x7fé漢字😀",
    'upstream:"}]\\<server error timeout 503>%n%b',
    "run:" + "5" * 100_000,
    "",
]


def example(reason: Reason) -> Refusal:
    """As a gate would refuse: a scope with digits, a configured value, and a wait where one can be told."""
    wait_s = None if kind_of(reason) is Kind.STOP else 12.345
    return Refusal(reason, "caller:3fa9c1", wait_s, "1 requests/3s")


def unbooked(reason: Reason) -> Refusal:
    """As a gate refuses where it could book no place: with a time, and the advice not to return by itself."""
    return Refusal(reason, "upstream:api", 47.5, "8 in flight", come_back=False)


def header(answer: Answer, name: str) -> str | None:
    """The value of a header, which must be there at most once."""
    values = [value.decode() for key, value in answer.headers if key == name.encode()]
    assert len(values) <= 1, f"{name} is sent {len(values)} times"
    return values[0] if values else None
