from __future__ import annotations

from dataclasses import replace

from proxy.core.cap import Cap
from proxy.core.claims import Claims
from proxy.core.policy import Per, Unit
from tests.kit.story import bucket, quota, tokens


def claims(*pers: Per) -> Claims:
    return Claims(
        caps=[("upstream:api", Cap("upstream:api", 1))],
        buckets=[(f"bucket of {per}", bucket(1.0, per=per)) for per in pers],
        quotas=[("quota of caller", quota(1, 60))],
    )


def test_keys_are_those_of_every_claim() -> None:
    assert claims(Per.ROUTE).keys() == ["upstream:api", "bucket of route", "quota of caller"]


def test_what_many_share_one_tools_one_callers_and_one_runs_are_told_apart() -> None:
    assert claims(Per.RUN, Per.CALLER, Per.TOOL).keys_by_sharing() == (
        ("upstream:api",),
        ("bucket of tool",),
        ("bucket of caller", "quota of caller"),
        ("bucket of run",),
    )


def test_the_cap_of_one_tool_is_that_tools_and_the_cap_of_one_caller_is_that_callers() -> None:
    keys = ("upstream:api", "tool:chat/search", "caller:ann")
    each = Claims([(key, Cap(key, 1)) for key in keys], [], [])
    assert each.keys_by_sharing() == (("upstream:api",), ("tool:chat/search",), ("caller:ann",), ())


def test_only_what_counts_tokens_depends_on_them() -> None:
    counting = Claims(
        caps=[("upstream:api", Cap("upstream:api", 1))],
        buckets=[("calls", bucket(1.0)), ("tokens", tokens(1.0, 1.0))],
        quotas=[("quota of calls", quota(1, 60)), ("output", replace(quota(1, 60), unit=Unit.OUTPUT))],
    )
    keys = ["upstream:api", "calls", "tokens", "quota of calls", "output"]
    assert [counting.counts_tokens(key) for key in keys] == [False, False, True, False, True]
