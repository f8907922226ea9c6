"""A request that is found impossible to forward after it was admitted: nothing was sent, nothing is spent."""

from __future__ import annotations

import pytest

from tests.app.watching import counted
from tests.kit.bench import answering_ok, bench_with
from tests.kit.raw import head

GET = head("GET", "/x", connection="close")
TRACE = head("TRACE", "/x", connection="close")
FRAGMENT = GET.replace(b"/x", b"/x#y")
NO_HOST = GET.replace(b"host: proxy", b"host: a/b")


@pytest.mark.parametrize("request_", [TRACE, FRAGMENT, NO_HOST])
async def test_it_gives_back_what_it_was_granted(request_: bytes):
    route = "buckets: [{rate: 1 request/3600s}]\nquotas: [{allow: 1 request/day}]"
    async with bench_with(route=route) as bench:
        bench.play(answering_ok)
        for _ in range(3):
            got = await bench.ask(request_)
            assert got.status == 400
            assert b"unsendable_request" in got.body
        assert (await bench.ask(GET)).status == 200
        assert (await bench.ask(GET)).status == 429
        assert (await counted(bench.proxy))["calls_settled_total"] == 4
        assert len(bench.heard) == 1
