"""A pipelined call behind one that ran in a task of its own: that task is not the next call's."""

from __future__ import annotations

import pytest

from tests.kit.bench import answering_ok, bench_with
from tests.kit.raw import head

pytestmark = pytest.mark.conformance("abuse")

CHUNKED = head("POST", "/x", transfer_encoding="chunked")


async def test_the_time_limit_of_the_second_is_not_bound_to_the_task_of_the_first():
    async with bench_with(upstream="timeouts: {idle: 50ms}") as bench:
        bench.play(answering_ok)
        async with bench.connect() as raw:
            await raw.send(CHUNKED + b"1\r\nx\r\n")
            await raw.send(b"0\r\n\r\n" + CHUNKED)  # and no body
            assert (await raw.reply()).status == 200
            assert await raw.is_closed()
        await bench.serves()
