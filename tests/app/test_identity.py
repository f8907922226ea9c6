from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity import (
    ANONYMOUS,
    BadHeader,
    Identity,
    Standing,
    deadline_s,
    fingerprint,
    sdk_says_retry,
)
from proxy.run_names import RunNames
from proxy.urgency import Hints

CLASSES = ("critical", "normal", "background")


def identity(*, max_rank: int = 0, known: dict[str, Standing] | None = None) -> Identity:
    return Identity(
        identify=("x-caller-id", "authorization", "x-api-key"),
        known=known or {},
        default=Standing("", max_rank, 1.0),
        priority_header="x-priority",
        classes=CLASSES,
        default_class="normal",
        runs=RunNames(("x-run-id",)),
        hints=Hints(),
    )


def test_a_key_is_one_caller_however_it_is_sent():
    who = identity()
    bearer = who.caller({b"authorization": b"Bearer sk-1"})
    assert bearer == who.caller({b"x-api-key": b"sk-1"}) == who.caller({b"authorization": b"bearer  sk-1 "})
    assert bearer != who.caller({b"x-api-key": b"sk-2"})


def test_a_callers_name_never_holds_its_key():
    assert b"sk-secret".decode() not in identity().caller({b"authorization": b"Bearer sk-secret"}).name


def test_the_first_configured_header_that_is_present_names_the_caller():
    who = identity()
    both = who.caller({b"x-caller-id": b"alice", b"authorization": b"Bearer sk-1"})
    assert both == who.caller({b"x-caller-id": b"alice"})


def test_without_any_of_them_the_caller_is_anonymous():
    assert identity().caller({b"accept": b"*/*"}).name == ANONYMOUS


def test_a_known_caller_has_its_name_its_maximum_and_its_weight():
    evals = Standing("nightly-evals", 2, 3.0)
    who = identity(known={fingerprint(b"key"): evals})
    assert who.caller({b"x-api-key": b"key"}) == evals


@pytest.mark.parametrize(
    ("header", "max_rank", "rank", "understood"),
    [
        (b"critical", 0, 0, True),
        (b"CRITICAL ", 0, 0, True),
        (b"background", 0, 2, True),
        (b"critical", 1, 1, True),  # lowered to the caller's maximum
        (b"critical", 2, 2, True),
        (None, 0, 1, True),
        (None, 2, 2, True),  # the default is above the maximum
        (b"urgent!!", 0, 1, False),
        (b"", 0, 1, False),
        (b"\xff\x00", 2, 2, False),
    ],
)
def test_a_priority_is_as_stated_but_never_above_the_callers_maximum(header, max_rank, rank, understood):
    headers = {} if header is None else {b"x-priority": header}
    assert identity().rank(headers, Standing("a", max_rank, 1.0)) == (rank, understood)


@pytest.mark.parametrize(
    ("headers", "total", "patience"),
    [
        ({}, float("inf"), float("inf")),
        ({b"x-deadline-ms": b"1500"}, 1.5, 1.5),
        ({b"x-deadline-ms": b"0"}, 0.0, 0.0),
        ({b"x-stainless-read-timeout": b"600"}, float("inf"), 599.0),
        ({b"x-stainless-timeout": b"5"}, float("inf"), 4.5),
        ({b"x-server-timeout": b"13"}, float("inf"), 12.0),
        ({b"x-stainless-timeout": b"NOT_GIVEN"}, float("inf"), float("inf")),
        ({b"x-stainless-timeout": b"nan"}, float("inf"), float("inf")),
        ({b"x-stainless-timeout": b"-1"}, float("inf"), float("inf")),
        ({b"x-stainless-read-timeout": b"NOT_GIVEN", b"x-stainless-timeout": b"2"}, float("inf"), 1.8),
        ({b"x-deadline-ms": b"1000", b"x-stainless-timeout": b"600"}, 1.0, 1.0),
    ],
)
def test_the_deadline_is_the_callers_word_and_patience_also_the_sdks(headers, total, patience):
    assert deadline_s(headers) == (total, pytest.approx(patience))


@pytest.mark.parametrize("value", [b"-5", b"soon", b"", b"1.5", b"1e3", b"9" * 30])
def test_a_deadline_that_means_nothing_is_refused_in_words(value):
    with pytest.raises(BadHeader, match="x-deadline-ms"):
        deadline_s({b"x-deadline-ms": value})


@pytest.mark.parametrize(
    ("count", "proven"),
    [(b"1", True), (b"2", True), (b"0", False), (b"", False), (b"-1", False), (b"x", False)],
)
def test_only_a_count_above_zero_proves_a_retry(count, proven):
    assert sdk_says_retry({b"x-stainless-retry-count": count}) is proven


def test_no_count_proves_nothing():
    assert sdk_says_retry({}) is False


@given(st.dictionaries(st.sampled_from([b"x-deadline-ms", b"x-stainless-timeout"]), st.binary(max_size=40)))
def test_no_header_value_escapes_as_another_error(headers):
    try:
        total, patience = deadline_s(headers)
    except BadHeader:
        return
    assert patience <= total
    assert total >= 0
