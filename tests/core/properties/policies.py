"""Policies as hypothesis draws them: small numbers, so that everything runs out."""

from __future__ import annotations

from hypothesis import strategies as st

from proxy.core.policy import (
    BreakerPolicy,
    BucketPolicy,
    CallerPolicy,
    CapPolicy,
    Per,
    Policy,
    QueuePolicy,
    QuotaPolicy,
    RetryBudgetPolicy,
    RoutePolicy,
    ToolPolicy,
    Unit,
    UpstreamPolicy,
)

CLASSES = ("critical", "normal", "background")
UPSTREAMS = ("north", "south")
ROUTES = ("chat", "code", "work")
CALLERS = ("ann", "bob", "cy")
RUNS = ("", "run-1", "run-2")
TOOLS = ("", "read", "write", "else-1", "else-2")

TOKENS = (0.0, 0.5, 1.0, 1.0, 2.5, 4.0)
"""What calls are estimated to cost: nothing, little, and more than some buckets can hold."""

USED = (None, None, 0.0, 0.5, 1.0, 2.5, 7.0)
"""What they prove to have used, beside nothing being known."""

SIZES = (0, 10, 10, 40, 120)
"""What calls keep in memory while they wait: little, and more than some queues hold."""

RATES = (0.1, 0.5, 1.0, 1 / 3, 3.0)


@st.composite
def bucket_policies(draw: st.DrawFn, prefix: str) -> tuple[BucketPolicy, ...]:
    kinds = st.tuples(
        st.sampled_from(Per), st.sampled_from([unit for unit in Unit if unit is not Unit.MONEY])
    )
    pers = draw(st.lists(kinds, unique=True, max_size=3))
    if "/" in prefix:  # tools cost no tokens
        pers = list({per: (per, Unit.REQUESTS) for per, _ in pers}.values())
    return tuple(
        BucketPolicy(
            # As `settings/policies.py` names them: the bucket of an upstream is one for all routes.
            key=f"all/upstream/{unit}" if is_common else f"{prefix}/{per}/{unit}",
            per=per,
            rate_per_s=0.5 if is_common else draw(st.sampled_from(RATES)),
            burst=3.0 if is_common else float(draw(st.sampled_from((1, 1.5, 2, 5)))),
            label="so many",
            unit=unit,
        )
        for per, unit in pers
        for is_common in (per is Per.UPSTREAM and "/" not in prefix,)
    )


@st.composite
def quota_policies(draw: st.DrawFn, prefix: str) -> tuple[QuotaPolicy, ...]:
    if draw(st.integers(0, 3)):
        return ()
    per, window_s = (
        draw(st.sampled_from((Per.CALLER, Per.ROUTE, Per.RUN))),
        draw(st.sampled_from((5, 40, 3600))),
    )
    amount = draw(st.integers(1, 6))
    return (QuotaPolicy(f"{prefix}/quota/{per}/{window_s}", per, amount, window_s, "so many a window"),)


@st.composite
def routes(draw: st.DrawFn, name: str) -> RoutePolicy:
    tools = {
        tool: ToolPolicy(
            slots=draw(st.none() | st.integers(1, 2)), buckets=draw(bucket_policies(f"{name}/{tool}"))
        )
        for tool in draw(st.lists(st.sampled_from(("read", "write", "*")), unique=True, max_size=2))
    }
    return RoutePolicy(
        name=name,
        queue=QueuePolicy(
            draw(st.sampled_from((20, 8, 5, 2, 1, 0))),
            draw(st.sampled_from((20.0, 3.0, 0.5))),
            max_bytes=draw(st.sampled_from((float("inf"), float("inf"), 100.0))),
        ),
        shed_at=draw(st.sampled_from(((2.0, 2.0, 2.0), (2.0, 1.0, 0.5)))),
        buckets=draw(bucket_policies(name)),
        quotas=draw(quota_policies(name)),
        cap=draw(st.none() | st.builds(CapPolicy, st.just(f"route:{name}"), st.integers(1, 3))),
        tools=tools,
    )


breakers = st.builds(
    BreakerPolicy,
    failure_ratio=st.sampled_from((0.3, 0.5, 1.0)),
    slow_call_s=st.sampled_from((1.0, 60.0)),
    slow_ratio=st.sampled_from((0.5, 0.8)),
    window_s=st.sampled_from((10.0, 30.0)),
    minimum_calls=st.integers(1, 4),
    open_for_s=st.sampled_from((0.7, 5.0, 90.0)),
    probes=st.integers(1, 3),
)

retry_budgets = st.builds(
    RetryBudgetPolicy,
    ratio=st.sampled_from((0.0, 0.1, 0.5)),
    floor_per_s=st.sampled_from((0.0, 1 / 60, 3 / 60)),
)


caller_policies = st.just({}) | st.dictionaries(
    st.sampled_from(("ann", "bob", "*")), st.builds(CallerPolicy, st.integers(1, 3)), max_size=3
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Two upstreams, up to three routes that may each lead to both."""
    names = draw(st.lists(st.sampled_from(ROUTES), unique=True, min_size=1))
    return Policy(
        classes=CLASSES,
        routes={name: draw(routes(name)) for name in names},
        upstreams={
            name: UpstreamPolicy(
                name=name,
                cap=CapPolicy(f"upstream:{name}", draw(st.integers(1, 4))),
                breaker=draw(st.none() | breakers),
                retry_budget=draw(st.none() | retry_budgets),
            )
            for name in UPSTREAMS
        },
        callers=draw(caller_policies),
    )
