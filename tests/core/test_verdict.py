from __future__ import annotations

import pytest

from proxy.core.verdict import Kind, Reason, Refusal, kind_of, status_of

# DESIGN §7, row by row.
TABLE = [
    (Kind.COME_BACK, 429, "bucket_empty quota_spent cap_reached queue_full waited_too_long displaced shed"),
    (Kind.UNAVAILABLE, 503, "breaker_open paused draining store_down"),
    (Kind.UPSTREAM, 502, "upstream_failed"),
    (Kind.UPSTREAM, 504, "upstream_timeout"),
    (Kind.NOT_AGAIN, 429, "retry_budget_spent"),
    (Kind.STOP, 400, "run_budget_spent run_halted too_dear"),
]
ROWS = [(Reason(word), kind, status) for kind, status, words in TABLE for word in words.split()]


@pytest.mark.parametrize(("reason", "kind", "status"), ROWS, ids=[row[0].value for row in ROWS])
def test_each_reason_has_the_kind_and_the_status_of_the_refusal_contract(
    reason: Reason, kind: Kind, status: int
) -> None:
    assert kind_of(reason) is kind
    assert status_of(reason) == status


def test_the_contract_names_every_reason() -> None:
    assert {row[0] for row in ROWS} == set(Reason)


def test_no_refusal_of_ours_speaks_of_the_callers_own_rights_or_mistakes() -> None:
    assert not {status_of(reason) for reason in Reason} & {401, 403, 404, 408, 409, 425}


def test_a_refusal_prints_who_refused_why_and_how_long() -> None:
    assert repr(Refusal(Reason.SHED, "route:chat", 20.0)) == "<Refusal shed route:chat retry_after=20.000s>"
    assert repr(Refusal(Reason.RUN_HALTED, "run:r1")) == "<Refusal run_halted run:r1>"
