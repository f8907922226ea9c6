"""What the demo upstream says that its callers pay for: the oracle of the proxy's own counts."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from proxy.demo import Cut, Outage, Refuse

ASK: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}
PATHS = ("/v1/chat/completions", "/v1/messages")


async def paid(demo: Any, path: str, **more: object) -> tuple[int, int, int]:
    """Input and output of one call, and the bytes it sent."""
    async with httpx.AsyncClient() as client:
        try:
            await client.post(demo.url + path, json=ASK | more)
        except httpx.HTTPError:
            assert not isinstance(demo.upstream.behaviour.mode, Refuse)
    ledger = demo.upstream.ledger
    await ledger.until(lambda: ledger.entries[-1].ending is not None)
    entry = ledger.entries[-1]
    return entry.input_tokens, entry.output_tokens, entry.body_bytes


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_pays_for_what_it_sent_and_for_each_word(demo: Any, path: str, stream: bool) -> None:
    demo.upstream.behaviour.stream_events = 5
    given, taken, sent = await paid(demo, path, stream=stream)
    assert (given, taken) == (sent // 4, 5)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("stream", "words"), [(True, 3), (False, 6)])
async def test_of_a_stream_that_is_cut_only_what_was_written(
    demo: Any, path: str, stream: bool, words: int
) -> None:
    demo.upstream.behaviour.stream_events = 6
    demo.upstream.behaviour.mode = Cut()
    given, taken, sent = await paid(demo, path, stream=stream)
    assert (given, taken) == (sent // 4, words)


@pytest.mark.parametrize("mode", [Outage("500"), Outage("reset"), Refuse(0.0)])
async def test_a_call_that_fails_pays_nothing(demo: Any, mode: Any) -> None:
    demo.upstream.behaviour.mode = mode
    assert (await paid(demo, PATHS[0]))[:2] == (0, 0)


@pytest.mark.parametrize("path", PATHS)
async def test_what_is_cached_is_told_as_each_provider_does(demo: Any, path: str) -> None:
    demo.upstream.behaviour.cached = 0.5
    async with httpx.AsyncClient() as client:
        usage = (await client.post(demo.url + path, json=ASK)).json()["usage"]
    given = demo.upstream.ledger.entries[-1].input_tokens
    if path == PATHS[0]:
        assert usage["prompt_tokens"] == given
        assert usage["prompt_tokens_details"]["cached_tokens"] == given // 2
    else:
        assert usage["input_tokens"] == given - given // 2
        assert usage["cache_read_input_tokens"] == given // 2
