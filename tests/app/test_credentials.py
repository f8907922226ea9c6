"""Whose key reaches the upstream, and where no key is ever seen."""

from __future__ import annotations

import pytest

from proxy.demo import Behaviour, Outage, serve_demo
from tests.kit.raw import connect
from tests.kit.running import BREAKER, running

PATH = "/chat/v1/chat/completions"
CALLERS = "sk-the-callers-own-key"
OURS = "sk-the-providers-key"


def yaml(url, credentials):
    return (
        f"upstreams: {{up: {{url: '{url}', dialect: openai, breaker: {BREAKER}{credentials}}}}}\n"
        "routes: [{name: chat, path: /chat, upstream: up, queue: {size: 0}, "
        "buckets: [{rate: 1 request/hour, burst: 6, per: caller}]}]\n"
    )


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key", "x-goog-api-key"])
async def test_the_upstream_sees_the_configured_key_and_never_the_callers(header):
    credentials = ", credentials: {authorization: 'Bearer ${PROVIDER_KEY}'}"
    async with (
        serve_demo(Behaviour(latency_s=0.0)) as demo,
        running(yaml(demo.url, credentials), {"PROVIDER_KEY": OURS}) as proxy,
        connect(proxy.url) as raw,
    ):
        value = f"Bearer {CALLERS}" if header == "authorization" else CALLERS
        assert (await raw.post(PATH, **{header: value})).status == 200
        (entry,) = demo.upstream.ledger.entries
        assert [each for name, each in entry.headers if name == "authorization"] == [f"Bearer {OURS}"]
        assert CALLERS not in str(entry.headers)


async def test_without_configured_credentials_the_callers_own_pass_as_they_are():
    async with (
        serve_demo(Behaviour(latency_s=0.0)) as demo,
        running(yaml(demo.url, "")) as proxy,
        connect(proxy.url) as raw,
    ):
        sent = {"authorization": f"Bearer {CALLERS}", "x_api_key": CALLERS}
        assert (await raw.post(PATH, **sent)).status == 200
        (entry,) = demo.upstream.ledger.entries
        assert entry.header("authorization") == f"Bearer {CALLERS}"
        assert entry.header("x-api-key") == CALLERS


@pytest.mark.parametrize(
    ("preset", "variable", "header", "value"),
    [
        ("openai", "OPENAI_API_KEY", "authorization", f"Bearer {OURS}"),
        ("azure", "AZURE_OPENAI_API_KEY", "api-key", OURS),
        ("anthropic", "ANTHROPIC_API_KEY", "x-api-key", OURS),
    ],
)
async def test_a_preset_sends_its_header_with_the_key_of_the_environment_where_that_is_asked_for(
    preset, variable, header, value
):
    async with (
        serve_demo(Behaviour(latency_s=0.0)) as demo,
        running(yaml(demo.url, f", preset: {preset}, credentials: env"), {variable: OURS}) as proxy,
        connect(proxy.url) as raw,
    ):
        assert (await raw.post(PATH, authorization=f"Bearer {CALLERS}")).status == 200
        (entry,) = demo.upstream.ledger.entries
        assert entry.header(header) == value
        assert CALLERS not in str(entry.headers)
        assert (entry.header("anthropic-version") == "2023-06-01") is (preset == "anthropic")


async def test_a_preset_alone_sends_the_callers_key_and_none_of_the_environment():
    async with (
        serve_demo(Behaviour(latency_s=0.0)) as demo,
        running(yaml(demo.url, ", preset: openai"), {"OPENAI_API_KEY": OURS}) as proxy,
        connect(proxy.url) as raw,
    ):
        assert (await raw.post(PATH, authorization=f"Bearer {CALLERS}")).status == 200
        (entry,) = demo.upstream.ledger.entries
        assert entry.header("authorization") == f"Bearer {CALLERS}"
        assert OURS not in str(entry.headers)


async def test_no_key_is_ever_logged_shown_or_answered():
    """Refused, failed and served calls: then every place is searched where something is shown."""
    credentials = f", credentials: {{authorization: 'Bearer {OURS}'}}"
    behaviour = Behaviour(latency_s=0.0)
    async with (
        serve_demo(behaviour) as demo,
        running(yaml(demo.url, credentials)) as proxy,
        connect(proxy.url) as raw,
    ):
        sent = {"authorization": f"Bearer {CALLERS}", "x_run_id": "the-secret-run"}
        replies = [await raw.post(PATH, **sent) for _ in range(3)]
        behaviour.mode = Outage(answer="500")
        replies += [await raw.post(PATH, **sent) for _ in range(3)]
        replies += [await raw.post(PATH, **sent) for _ in range(2)]
        assert [reply.status for reply in replies] == [200] * 3 + [500] * 3 + [503] * 2
        shown = [reply.text + str(reply.headers) for reply in replies]
        shown += [proxy.log.getvalue(), await proxy.metrics(), str(await proxy.state())]
        shown += [repr(proxy.proxy.settings), repr(proxy.proxy._upstreams)]
        assert proxy.lines(), "there is something to search"
        for secret in (CALLERS, OURS, "the-secret-run"):
            for text in shown:
                assert secret not in text
