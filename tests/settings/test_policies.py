"""Settings → Policy: keys, defaults and units of the core's terms."""

from __future__ import annotations

import pytest

from proxy.core.policy import (
    AdaptivePolicy,
    BucketPolicy,
    CallerPolicy,
    CapPolicy,
    Per,
    Policy,
    QueuePolicy,
    QuotaPolicy,
    Unit,
)
from proxy.settings import from_upstream, parse, to_policy
from proxy.settings.policies import shed_at

UPSTREAM = "upstreams: {a: {url: 'http://127.0.0.1:9000', dialect: openai}}\n"
TOOLS = "upstreams: {a: {url: 'http://127.0.0.1:9000', dialect: mcp}}\n"


def policy(text: str) -> Policy:
    return to_policy(parse(text, "config.yaml", {}))


def bucket(text: str) -> BucketPolicy:
    route = f"routes: [{{name: chat, path: /, upstream: a, buckets: [{text}]}}]\n"
    return policy(UPSTREAM + route).routes["chat"].buckets[0]


def test_a_bucket_counts_for_its_route_unless_it_says_otherwise() -> None:
    assert bucket("{rate: 120 requests/minute}") == BucketPolicy(
        "route:chat/route/requests/60s", Per.ROUTE, 2.0, 2.0, "120 requests/minute"
    )


@pytest.mark.parametrize(
    ("rate", "burst"), [("1 request/3s", 1.0), ("60 requests/minute", 1.0), ("90 requests/second", 90.0)]
)
def test_the_default_burst_is_one_second_of_the_rate_and_at_least_one(rate: str, burst: float) -> None:
    assert bucket(f"{{rate: {rate}}}").burst == burst


def test_a_bucket_of_tokens_holds_by_default_all_that_its_rate_states() -> None:
    assert bucket("{rate: 200k tokens/minute, per: caller}") == BucketPolicy(
        "route:chat/caller/tokens/60s",
        Per.CALLER,
        200_000 / 60,
        200_000.0,
        "200000 tokens/minute",
        Unit.TOKENS,
    )
    assert bucket("{rate: 200k tokens/minute, burst: 50k}").burst == 50_000.0
    assert bucket("{rate: 200k tokens/minute, per: upstream}").key == "upstream:a/tokens"


@pytest.mark.parametrize(("way", "unit"), [("input", Unit.INPUT), ("output", Unit.OUTPUT)])
def test_tokens_of_one_way_have_counts_of_their_own(way: str, unit: Unit) -> None:
    found = bucket(f"{{rate: 90k {way} tokens/minute, per: upstream}}")
    assert (found.key, found.unit, found.burst) == (f"upstream:a/{way}_tokens", unit, 90_000.0)
    assert found.label == f"90000 {way} tokens/minute"


def test_only_a_route_with_a_bucket_of_tokens_counts_them() -> None:
    route = "routes: [{{name: chat, path: /, upstream: a, buckets: [{{rate: 5 {}/s}}]}}]\n"
    for unit, counts in (("requests", False), ("tokens", True), ("output tokens", True)):
        assert policy(UPSTREAM + route.format(unit)).routes["chat"].counts_tokens is counts


def test_the_key_of_a_bucket_survives_a_new_amount_and_a_new_burst() -> None:
    before = bucket("{rate: 500 requests/minute, per: caller}")
    after = bucket("{rate: 900 requests/minute, burst: 70, per: caller}")
    assert before.key == after.key


def test_two_periods_of_one_caller_are_two_counts() -> None:
    assert (
        bucket("{rate: 5 requests/second, per: caller}").key
        != bucket("{rate: 5 requests/day, per: caller}").key
    )


def test_all_routes_that_state_an_upstreams_allowance_share_one_count() -> None:
    built = policy(
        UPSTREAM
        + "routes:\n"
        + "  - {name: x, path: /x, upstream: a, buckets: [{rate: 60 requests/minute, per: upstream}]}\n"
        + "  - {name: y, path: /y, upstream: a, buckets: [{rate: 1 request/second, per: upstream}]}\n"
    )
    keys = {route.buckets[0].key for route in built.routes.values()}
    assert keys == {"upstream:a/requests"}


def test_caps_queue_and_quotas_arrive_in_the_terms_of_the_core() -> None:
    built = policy(
        UPSTREAM
        + "routes:\n  - name: chat\n    path: /\n    upstream: a\n    concurrency: 3\n"
        + "    queue: {size: 0, max_age: 500ms}\n"
        + "    quotas: [{allow: 10k requests/day, per: caller}, {allow: 9 requests/hour, per: upstream}]\n"
    )
    chat = built.routes["chat"]
    assert chat.cap == CapPolicy("route:chat", 3)
    assert chat.queue == QueuePolicy(0, 0.5, max_bytes=64 * 2**20)
    assert chat.quotas == (
        QuotaPolicy("route:chat/caller/quota/86400s", Per.CALLER, 10_000, 86_400, "10000 requests/day"),
        QuotaPolicy("upstream:a/quota/3600s", Per.UPSTREAM, 9, 3600, "9 requests/hour"),
    )
    assert built.upstreams["a"].cap == CapPolicy("upstream:a", 16, adaptive=AdaptivePolicy(4, 16, 256))


@pytest.mark.parametrize(
    ("stated", "bounds"),
    [
        ("concurrency: adaptive", (4, 16, 256)),
        ("concurrency: {adaptive: {min: 2, start: 8, max: 9}}", (2, 8, 9)),
        ("concurrency: {adaptive: {max: 3}}", (3, 3, 3)),
        ("concurrency: {adaptive: {min: 20}}", (20, 20, 256)),
        ("connections: {max: 100}", (4, 16, 100)),
    ],
)
def test_what_is_not_stated_of_a_learnt_cap_gives_way(stated: str, bounds: tuple[int, int, int]) -> None:
    built = policy(
        f"upstreams: {{a: {{url: 'http://x', dialect: openai, {stated}}}}}\n"
        "routes: [{name: chat, path: /, upstream: a}]\n"
    )
    assert built.upstreams["a"].cap.adaptive == AdaptivePolicy(*bounds)


def test_a_tools_bucket_is_under_the_tools_own_key() -> None:
    built = policy(
        TOOLS
        + "routes:\n  - name: gh\n    path: /\n    upstream: a\n"
        + "    tools:\n"
        + "      pr: {concurrency: 1, buckets: [{rate: 10 requests/hour, per: caller}]}\n"
        + "      '*': {concurrency: 8}\n"
    )
    tools = built.routes["gh"].tools
    assert tools["pr"].slots == 1
    assert [each.key for each in tools["pr"].buckets] == ["tool:gh/pr/caller/requests/3600s"]
    assert (tools["*"].slots, tools["*"].buckets) == (8, ())


@pytest.mark.parametrize(
    ("stated", "classes", "expected"),
    [
        ({}, ["only"], (1.01,)),
        ({}, ["a", "b"], (1.01, 0.5)),
        ({}, ["a", "b", "c"], (1.01, 0.75, 0.5)),
        ({}, ["a", "b", "c", "d", "e"], (1.01, 0.875, 0.75, 0.625, 0.5)),
        ({"c": 0.9}, ["a", "b", "c"], (1.01, 0.9, 0.9)),
        ({"b": 0.2}, ["a", "b", "c"], (1.01, 0.2, 0.2)),
        ({"a": 0.3}, ["a", "b", "c"], (0.3, 0.3, 0.3)),
        ({"c": 1.01}, ["a", "b", "c"], (1.01, 1.01, 1.01)),
    ],
)
def test_no_class_is_shed_before_a_less_urgent_one(
    stated: dict[str, float], classes: list[str], expected: tuple[float, ...]
) -> None:
    assert shed_at(stated, classes) == expected


def test_what_is_not_enforced_is_in_dry_run_and_nothing_else_is() -> None:
    off = policy(
        "upstreams: {a: {url: 'http://x', dialect: mcp, concurrency: {slots: 3, enforce: false},\n"
        "  breaker: {enforce: false}}}\n"
        "routes: [{name: chat, path: /, upstream: a, concurrency: {slots: 4, enforce: false},\n"
        "  buckets: [{rate: 1 request/s, enforce: false}, {rate: 1 request/s, per: run}],\n"
        "  quotas: [{allow: 9 requests/day, enforce: false}], queue: {size: 7, enforce: false},\n"
        "  tools: {x: {concurrency: {slots: 5, enforce: false}, buckets: [{rate: 1 request/s}]}}}]\n"
    )
    upstream, route = off.upstreams["a"], off.routes["chat"]
    assert upstream.cap == CapPolicy("upstream:a", 3, enforce=False)
    assert upstream.breaker is not None
    assert not upstream.breaker.enforce
    assert route.cap == CapPolicy("route:chat", 4, enforce=False)
    assert [each.enforce for each in (*route.buckets, *route.quotas)] == [False, True, False]
    assert (route.tools["x"].slots, route.tools["x"].enforce) == (5, False)
    assert route.tools["x"].buckets[0].enforce
    assert route.queue == QueuePolicy(0, 10.0, dry_size=7, max_bytes=64 * 2**20)


def test_what_waiting_calls_may_keep_in_memory_is_stated_in_bytes() -> None:
    built = policy(UPSTREAM + "routes: [{name: chat, path: /, upstream: a, queue: {max_bytes: 1.5MiB}}]\n")
    assert built.routes["chat"].queue == QueuePolicy(200, 10.0, max_bytes=1_572_864)


ROUTE = "routes: [{name: chat, path: /, upstream: a}]\n"


@pytest.mark.parametrize(
    ("callers", "expected"),
    [
        ("{}", {}),
        ("{default: {concurrency: 8}}", {"*": CallerPolicy(8)}),
        ("{known: [{name: ann, key: k}, {name: bob, key: l, concurrency: 2}]}", {"bob": CallerPolicy(2)}),
        (
            "{default: {concurrency: {slots: 8, enforce: no}}, known: [{name: ann, key: k, concurrency: 1}]}",
            {"*": CallerPolicy(8, enforce=False), "ann": CallerPolicy(1)},
        ),
    ],
)
def test_a_caller_has_a_cap_if_it_or_the_default_states_one(
    callers: str, expected: dict[str, CallerPolicy]
) -> None:
    assert policy(f"{UPSTREAM}callers: {callers}\n{ROUTE}").callers == expected


def test_a_breaker_and_a_retry_budget_that_are_off_are_absent() -> None:
    built = policy(
        "upstreams: {a: {url: 'http://x', dialect: openai, breaker: off, retry_budget: off}}\n"
        "routes: [{name: chat, path: /, upstream: a}]\n"
    )
    assert built.upstreams["a"].breaker is None
    assert built.upstreams["a"].retry_budget is None


def test_without_yaml_there_are_a_cap_a_queue_a_breaker_and_a_retry_budget() -> None:
    settings = from_upstream("http://127.0.0.1:9000/base/")
    built = to_policy(settings)
    assert [(route.name, route.path, route.upstream) for route in settings.routes] == [
        ("default", "/", "default")
    ]
    assert settings.upstreams["default"].url == "http://127.0.0.1:9000/base"
    assert built.upstreams["default"].breaker is not None
    assert built.upstreams["default"].retry_budget is not None
    assert built.routes["default"].queue == QueuePolicy(200, 10.0, max_bytes=64 * 2**20)
