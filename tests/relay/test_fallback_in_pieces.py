"""A prompt that comes in several reads, as most do, can be asked of another upstream too."""

from __future__ import annotations

import pytest

from tests.kit.bench import answering_ok
from tests.kit.raw import connect, head
from tests.kit.running import running
from tests.kit.scripted import Peer, Scripted
from tests.kit.waiting import settled

UP = "{{url: '{url}', dialect: openai, breaker: off, retry_budget: off}}"


@pytest.mark.parametrize("size", [30_000, 100_000])
async def test_a_prompt_that_comes_in_two_reads_is_asked_of_the_second_too(size: int):
    async def failing(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    async with Scripted(failing) as first, Scripted(answering_ok) as second:
        yaml = (
            f"upstreams: {{first: {UP.format(url=first.url)}, second: {UP.format(url=second.url)}}}\n"
            "routes: [{name: api, path: /, upstream: first, fallback: [{upstream: second}]}]\n"
        )
        async with running(yaml) as proxy, connect(proxy.url) as raw:
            request = head("POST", "/v1/chat/completions", content_length=str(size)) + b"x" * size
            await raw.send(request[:15_000])
            await settled(raw.writer.transport.get_write_buffer_size)
            await raw.send(request[15_000:])
            assert (await raw.reply()).status == 200
