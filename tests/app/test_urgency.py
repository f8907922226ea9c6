"""How urgent a call is by what agents send without being told to."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from proxy.urgency import UNSAID, Hint, Hints, urgency
from tests.app.watching import assert_nothing_is_held
from tests.kit.raw import CHAT, connect, head
from tests.kit.running import Running, before_demo

PATH = "/openai/v1/chat/completions"
HINTS = """\
priority:
  hints:
    - {header: x-claude-code-request-class, map: {main: critical, auxiliary: background}}
    - {header: priority, map: {0-2: critical, 5-7: background}}
    - {body: service_tier, map: {priority: critical, flex: background}}
callers:
  known:
    - {name: evals, key: k, max_priority: background}
    - {name: team, key: t, max_priority: normal}
"""
FLEX = CHAT[:-1] + b',"service_tier":"flex"}'


@pytest.mark.parametrize(
    ("field", "found"),
    [
        (b"u=5", b"5"),
        (b"u=0, i", b"0"),
        (b"i, u=7", b"7"),
        (b" u=2;x=1 ", b"2"),
        (b"u=1, u=4", b"4"),  # the last counts
        (b"i", b"3"),
        (b"", b"3"),  # present, and nothing stated
        (b"u=9", b"3"),
        (b"u", b"3"),
        (b"u=-1, i=?0", b"3"),
        (b"u=1.5", b"3"),
        (b'u="1"', b"3"),
        (b"x=7", b"3"),
        (b"U=1", b""),  # no key of a dictionary
        (b"u=1,,i", b""),
        (b"=1", b""),
        (b"\xff", b""),
        (b"u=1," + b"i," * 200, b""),
    ],
)
def test_the_priority_field_is_read_as_its_standard_says(field, found):
    assert urgency(field) == found if field else urgency(field) in (b"", b"3")


@given(st.binary() | st.from_regex(rb"([ui]=?[0-9?;, ]{0,4},?){0,5}"))
def test_no_field_makes_it_raise(field):
    assert urgency(field) in {b"", *(b"%d" % each for each in range(8))}
    hints = Hints([Hint(b"priority", {b"0": 0}), Hint(b"x", {b"a": 1}), Hint(b"", {b"a": 2})])
    assert hints.rank({b"priority": field, b"x": field}, field) in {UNSAID, 0, 1, 2}


async def refused(proxy: Running) -> Counter[str]:
    """Calls refused so far, by class."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(await proxy.metrics()):
        for sample in family.samples:
            if sample.name == "backpressure_calls_refused_total":
                found[sample.labels["priority"]] += int(sample.value)
    return found


async def lane_of(proxy: Running, body: bytes = CHAT, **headers: str) -> str:
    """The class of a call, as its refusal is counted."""
    before = await refused(proxy)
    async with connect(proxy.url) as raw:
        reply = await raw.post(PATH, body, **headers)
        assert reply.status == 429, reply.text
    (name,) = (await refused(proxy) - before).elements()
    return name


FULL = "buckets: [{rate: 1 request/hour, burst: 1}]\nqueue: {size: 0}"


async def test_hints_are_believed_in_their_order_and_the_header_of_ours_before_them():
    async with before_demo(top=HINTS, route=FULL) as proxy:
        async with connect(proxy.url) as raw:
            assert (await raw.post(PATH)).status == 200
        agent = "x_claude_code_request_class"
        for expected, headers, body in [
            ("normal", {}, CHAT),
            ("critical", {agent: "main"}, CHAT),
            ("background", {agent: "Auxiliary"}, CHAT),
            ("normal", {agent: "workflow"}, CHAT),  # not in the map: it says nothing
            ("critical", {agent: "workflow", "priority": "u=1, i"}, CHAT),
            ("background", {agent: "auxiliary", "priority": "u=1"}, CHAT),
            ("normal", {"priority": "u=3"}, CHAT),
            ("background", {"priority": "u=7"}, CHAT),
            ("background", {}, FLEX),
            ("background", {"priority": "u=3"}, FLEX),
            ("critical", {"priority": "u=0"}, FLEX),
            ("critical", {"x_priority": "critical"}, FLEX),
            ("normal", {"x_priority": "no class"}, FLEX),
            ("normal", {}, CHAT[:-1] + b',"service_tier":["flex"]}'),
            ("background", {agent: "main", "x_api_key": "k"}, CHAT),  # never above its maximum
            ("normal", {agent: "main", "x_api_key": "t"}, CHAT),
            ("background", {agent: "auxiliary", "x_api_key": "t"}, CHAT),
        ]:
            assert await lane_of(proxy, body, **headers) == expected, (headers, body)
        await assert_nothing_is_held(proxy)


async def test_a_body_is_not_awaited_where_a_header_says_it():
    async with before_demo(top=HINTS, route=FULL) as proxy, connect(proxy.url) as raw:
        assert (await raw.post(PATH)).status == 200
        await raw.send(head("POST", PATH, content_length="99", priority="u=0"))
        assert (await raw.reply()).status == 429, "and no body was sent"
    async with before_demo(top=HINTS, route=FULL) as proxy, connect(proxy.url) as raw:
        assert (await raw.post(PATH)).status == 200
        await raw.send(head("POST", PATH, content_length="99", x_priority="normal"))
        assert (await raw.reply()).status == 429, "and no body was sent"


async def test_without_hints_nothing_of_the_kind_is_believed():
    async with before_demo(route=FULL) as proxy:
        async with connect(proxy.url) as raw:
            assert (await raw.post(PATH)).status == 200
        said = {"x_claude_code_request_class": "main", "priority": "u=0"}
        assert await lane_of(proxy, FLEX, **said) == "normal"
