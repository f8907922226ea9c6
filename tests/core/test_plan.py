from __future__ import annotations

from proxy.core.call import Call
from proxy.core.claims import Shortfall, scope_of
from proxy.core.plan import claims_of
from proxy.core.policy import CapPolicy, Per, QueuePolicy, RoutePolicy, ToolPolicy, UpstreamPolicy
from proxy.core.target import Target
from proxy.core.verdict import Reason
from proxy.stores.breakers import BreakerMachine
from tests.kit.story import bucket, quota

TARGET = Target(UpstreamPolicy("api", CapPolicy("upstream:api", 4), None, None), BreakerMachine("api"))
QUEUE = QueuePolicy(0, 1.0)


def route(**policies: object) -> RoutePolicy:
    return RoutePolicy("chat", QUEUE, (2.0,), **policies)  # type: ignore[arg-type]


def call(tool: str = "", run: str = "", model: str = "") -> Call:
    return Call(route="chat", caller="ann", run=run, tool=tool, model=model, arrived_at=0.0)


def test_every_call_claims_a_permit_of_its_upstream() -> None:
    assert claims_of(call(), TARGET, route()).keys() == ["upstream:api"]


def test_a_route_with_a_cap_of_its_own_is_claimed_too() -> None:
    claims = claims_of(call(), TARGET, route(cap=CapPolicy("route:chat", 2)))
    assert claims.keys() == ["upstream:api", "route:chat"]


def test_each_allowance_is_counted_under_whose_it_is() -> None:
    buckets = tuple(bucket(1.0, per=per, key="k") for per in Per)
    claims = claims_of(call(tool="search", run="r1", model="m1"), TARGET, route(buckets=buckets))
    assert [key for key, _ in claims.buckets] == [
        "k|caller:ann",
        "k|run:r1",
        "k|route:chat",
        "k|upstream:api",
        "k|tool:chat/search",
        "k|model:m1",
    ]


def test_a_quota_is_counted_like_a_bucket() -> None:
    claims = claims_of(call(), TARGET, route(quotas=(quota(5, 60),)))
    assert [key for key, _ in claims.quotas] == ["quota/caller/60|caller:ann"]


def test_a_named_tool_follows_its_own_policy_and_no_other() -> None:
    tools = {"search": ToolPolicy(2, (bucket(1.0, key="s"),)), "*": ToolPolicy(7, (bucket(1.0, key="any"),))}
    claims = claims_of(call(tool="search"), TARGET, route(tools=tools))
    assert [(key, cap.slots) for key, cap in claims.caps][1:] == [("tool:chat/search", 2)]
    assert [key for key, _ in claims.buckets] == ["s|caller:ann"]


def test_each_tool_without_a_name_of_its_own_has_the_cap_of_the_star_to_itself() -> None:
    tools = {"*": ToolPolicy(7)}
    keys = [claims_of(call(tool=name), TARGET, route(tools=tools)).caps[1] for name in ("one", "two")]
    assert [(key, cap.slots) for key, cap in keys] == [("tool:chat/one", 7), ("tool:chat/two", 7)]


def test_a_call_without_a_tool_claims_nothing_of_any() -> None:
    assert claims_of(call(), TARGET, route(tools={"*": ToolPolicy(1)})).keys() == ["upstream:api"]


def test_a_refusal_names_the_cap_or_whose_allowance_it_was() -> None:
    assert scope_of(Shortfall("tool:chat/x", Reason.CAP_REACHED, 0.0, 0.0, "")) == "tool:chat/x"
    assert scope_of(Shortfall("k/requests|caller:a|b", Reason.BUCKET_EMPTY, 1.0, 1.0, "")) == "caller:a|b"
