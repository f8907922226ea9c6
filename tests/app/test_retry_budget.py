"""Which calls the retry budget pays for, and what becomes of those it does not pay for."""

from __future__ import annotations

import pytest

from proxy.demo import Behaviour, Ok, Outage
from tests.app.watching import assert_nothing_is_held, by_hand
from tests.kit.raw import CHAT, connect
from tests.kit.running import before_demo

PATH = "/openai/v1/chat/completions"
NONE = "retry_budget: {ratio: 0, floor: 0 per minute}\nbreaker: off"
ONE = "retry_budget: {ratio: 0, floor: 1 per minute}\nbreaker: off"
BUCKET = "buckets: [{rate: 1 request/30s, per: caller}]\nqueue: {size: 0}"
FAILING = Outage(answer="500")


def reason(reply):
    return reply.headers.get("x-backpressure-reason", str(reply.status))


async def test_a_repeat_that_the_sdk_counts_is_paid_for_until_the_budget_is_spent():
    async with before_demo(upstream=ONE) as proxy, connect(proxy.url) as raw:
        assert (await raw.post(PATH, x_stainless_retry_count="1")).status == 200
        refused = await raw.post(PATH, x_stainless_retry_count="1")
        assert refused.status == 429
        assert reason(refused) == "retry_budget_spent"
        assert refused.headers["x-should-retry"] == "false"
        assert 1 <= int(refused.headers["retry-after"]) <= 55
        assert proxy.upstream.ledger.arrivals == 1
        for length, count in enumerate(("0", "none", "-1"), start=1):
            reply = await raw.post(PATH, CHAT + b" " * length, x_stainless_retry_count=count)
            assert reply.status == 200, "that proves nothing"


@pytest.mark.parametrize(
    ("failed", "repeat"),
    [
        (CHAT, CHAT),
        (CHAT, b'{"messages":[{"role":"user","content":"hi"}],"model":"demo"}'),
        (CHAT, b'{"messages": [{"content":"hi", "role":"user"}],  "model": "demo"}'),
        (CHAT[:-1] + b',"stream":true}', CHAT[:-1] + b',"stream":false}'),
        (CHAT[:-1] + b',"stream":true,"stream_options":{"include_usage":true}}', CHAT),
    ],
    ids=["same bytes", "other order of keys", "other spaces", "not streamed", "stream left out"],
)
async def test_a_repeat_of_a_failed_call_is_known_by_its_content(failed, repeat):
    behaviour = Behaviour(latency_s=0.0, mode=FAILING)
    async with before_demo(behaviour, upstream=NONE) as proxy, connect(proxy.url) as raw:
        assert (await raw.post(PATH, failed)).status == 500
        behaviour.mode = Ok()
        assert reason(await raw.post(PATH, repeat)) == "retry_budget_spent"
        assert proxy.upstream.ledger.arrivals == 1


async def test_another_call_of_the_same_length_is_no_repeat_of_a_failed_one():
    behaviour = Behaviour(latency_s=0.0, mode=FAILING)
    async with before_demo(behaviour, upstream=NONE) as proxy, connect(proxy.url) as raw:
        await raw.post(PATH)
        behaviour.mode = Ok()
        assert (await raw.post(PATH, CHAT.replace(b"hi", b"ho"))).status == 200
        assert (await raw.post(PATH, CHAT, authorization="Bearer another")).status == 200
        assert (await raw.post(PATH, CHAT, x_run_id="another run")).status == 200
        assert reason(await raw.post(PATH, CHAT)) == "retry_budget_spent"


async def test_what_comes_back_at_the_told_time_is_not_charged_and_what_comes_early_is():
    async with before_demo(upstream=NONE, route=BUCKET) as proxy, connect(proxy.url) as raw:
        clock = by_hand(proxy)
        assert (await raw.post(PATH)).status == 200
        told = await raw.post(PATH)
        assert reason(told) == "bucket_empty"
        clock.advance(int(told.headers["retry-after-ms"]) / 1000)
        assert (await raw.post(PATH)).status == 200, "in time, and so no retry"

        told = await raw.post(PATH)
        clock.advance(10)
        early = await raw.post(PATH)
        assert reason(early) == "retry_budget_spent", "recognised by its body"
        clock.advance(int(early.headers["retry-after-ms"]) / 1000)
        assert (await raw.post(PATH)).status == 200, "told anew, and in time"
        await assert_nothing_is_held(proxy)


async def test_the_sdks_own_count_charges_nobody_who_comes_at_the_told_time():
    async with before_demo(upstream=NONE, route=BUCKET) as proxy, connect(proxy.url) as raw:
        clock = by_hand(proxy)
        await raw.post(PATH)
        told = await raw.post(PATH)
        clock.advance(int(told.headers["retry-after"]))
        assert (await raw.post(PATH, x_stainless_retry_count="1")).status == 200
        clock.advance(60)
        assert reason(await raw.post(PATH, x_stainless_retry_count="1")) == "retry_budget_spent"


async def test_a_return_of_another_length_or_after_a_minute_is_a_first_attempt():
    async with before_demo(upstream=NONE, route=BUCKET) as proxy, connect(proxy.url) as raw:
        clock = by_hand(proxy)
        await raw.post(PATH)
        await raw.post(PATH)
        assert reason(await raw.post(PATH, CHAT + b" ")) == "bucket_empty"
        clock.advance(200)
        assert (await raw.post(PATH)).status == 200


async def test_first_attempts_are_not_touched_by_a_spent_budget():
    async with before_demo(upstream=NONE) as proxy, connect(proxy.url) as raw:
        assert reason(await raw.post(PATH, x_stainless_retry_count="2")) == "retry_budget_spent"
        body = CHAT.replace(b"hi", b"something else")
        assert (await raw.post(PATH, body)).status == 200


async def test_a_loud_caller_spends_its_own_retries_and_not_those_of_others():
    upstream = "retry_budget: {ratio: 0.5, floor: 0 per minute}"
    async with before_demo(upstream=upstream) as proxy, connect(proxy.url) as raw:
        for _ in range(2):
            await raw.post(PATH, x_caller_id="loud")
        for _ in range(6):
            await raw.post(PATH, x_caller_id="quiet")
        retry = {"x_stainless_retry_count": "1"}
        assert (await raw.post(PATH, x_caller_id="loud", **retry)).status == 200
        refused = await raw.post(PATH, x_caller_id="loud", **retry)
        assert reason(refused) == "retry_budget_spent"
        assert refused.headers["x-backpressure-scope"].startswith("caller:")
        assert "loud" not in refused.headers["x-backpressure-scope"], "an identity is shown hashed"
        assert (await raw.post(PATH, x_caller_id="quiet", **retry)).status == 200


async def test_many_quiet_callers_together_cannot_spend_more_than_the_upstreams_budget():
    async with before_demo(upstream=ONE) as proxy, connect(proxy.url) as raw:
        retry = {"x_stainless_retry_count": "1"}
        assert (await raw.post(PATH, x_caller_id="a", **retry)).status == 200
        refused = await raw.post(PATH, x_caller_id="b", **retry)
        assert refused.headers["x-backpressure-scope"] == "upstream:openai"
        assert reason(refused) == "retry_budget_spent"


async def test_an_upstream_without_a_budget_serves_every_repeat():
    async with before_demo(upstream="retry_budget: off") as proxy, connect(proxy.url) as raw:
        for _ in range(5):
            assert (await raw.post(PATH, x_stainless_retry_count="2")).status == 200


async def test_a_long_body_of_no_declared_length_arrives_whole_although_its_caller_failed_before():
    """What is read to recognise a repeat must not be missing from what is sent."""
    behaviour = Behaviour(latency_s=0.0, mode=FAILING)
    async with (
        before_demo(behaviour, upstream="breaker: off", top="peek: 1KiB") as proxy,
        connect(proxy.url) as raw,
    ):
        for empty in (b"", CHAT):
            await raw.post(PATH, empty)
        behaviour.mode = Ok()
        body = b'{"model":"demo","messages":[{"role":"user","content":"' + b"x" * 5000 + b'"}]}'
        chunks = b"".join(
            b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:700], body[700:1400], body[1400:])
        )
        head = f"POST {PATH} HTTP/1.1\r\nhost: proxy\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        await raw.send(head + chunks + b"0\r\n\r\n")
        assert (await raw.reply()).status == 200
        assert proxy.upstream.ledger.entries[-1].body_bytes == len(body)
