from __future__ import annotations

import pytest

from proxy.dialects import dialect_named
from proxy.routing import Route, Table, prefix_of


def table(*paths: str) -> Table:
    rest = dialect_named("rest")
    routes = []
    for path in paths:
        prefix, names_tool = prefix_of(path)
        routes.append(Route(path, prefix, names_tool, rest, (), counts_retries=False))
    return Table(routes)


@pytest.mark.parametrize(
    ("path", "route", "rest", "tool"),
    [
        (b"/openai/v1/chat", "/openai/", b"/v1/chat", ""),
        (b"/openai", "/openai/", b"", ""),
        (b"/openai/", "/openai/", b"/", ""),
        (b"/openai/eu/v1", "/openai/eu", b"/v1", ""),
        (b"/openai/europe", "/openai/", b"/europe", ""),
        (b"/openai//v1/%2F..;a=b", "/openai/", b"//v1/%2F..;a=b", ""),
        (b"/tools/search/x?", "/tools/{tool}", b"/search/x?", "search"),
        (b"/tools/a%20b", "/tools/{tool}", b"/a%20b", "a b"),
        (b"/tools/se%61rch", "/tools/{tool}", b"/se%61rch", "search"),
    ],
)
def test_the_longest_prefix_that_ends_with_a_segment_wins_and_the_rest_is_kept_to_the_byte(
    path, route, rest, tool
):
    match = table("/openai/", "/openai/eu", "/tools/{tool}").find(path)
    assert (match.route.name, match.rest, match.tool) == (route, rest, tool)


@pytest.mark.parametrize(
    "path", [b"/", b"/openaix", b"/OPENAI/v1", b"/%6Fpenai/v1", b"/tools", b"/tools//x", b""]
)
def test_no_other_spelling_reaches_a_route(path):
    assert table("/openai/", "/tools/{tool}").find(path) is None


def test_a_route_at_the_root_takes_what_no_other_takes():
    everything = table("/", "/openai/")
    assert everything.find(b"/v1/models").rest == b"/v1/models"
    assert everything.find(b"/openai/v1").route.name == "/openai/"


def test_the_prefixes_are_what_a_caller_may_write():
    assert table("/openai/", "/tools/{tool}", "/mcp").prefixes == ["/mcp/", "/openai/", "/tools/{tool}"]


@pytest.mark.parametrize(
    ("path", "leaves"),
    [
        (b"/openai/v1/chat", False),
        (b"/openai/a/../b", False),
        (b"/openai/a/../../b", True),
        (b"/openai/..", True),
        (b"/openai/%2e%2E/admin", True),
        (b"/openai/a%2F..%2F../admin", True),
        (b"/openai/a\\..\\..\\admin", True),
        (b"/openai/./a..b/...", False),
        (b"/tools/search/x/../y", False),
        (b"/tools/search/../report", True),
        (b"/tools/..", True),
        (b"/tools/./search/../report", True),
    ],
)
def test_no_spelling_of_dots_leads_out_of_the_route_or_of_the_tool(path, leaves):
    found = table("/openai/", "/tools/{tool}").find(path)
    assert found is not None
    assert found.climbs is leaves
