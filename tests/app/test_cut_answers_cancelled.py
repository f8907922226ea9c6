"""The instant repeat of a cut answer, cancelled wherever it may be."""

from __future__ import annotations

from tests.app.test_cancellation import LATE, MOST_SUSPENSIONS, Arming
from tests.app.test_cut_answers import MESSAGES, SESSION, STREAM, asked, cutting, post
from tests.app.watching import assert_nothing_is_held
from tests.kit.raw import connect, head
from tests.kit.scripted import OK, Peer
from tests.kit.waiting import bounded, until


@LATE
async def test_a_repeat_that_is_cancelled_anywhere_leaves_nothing_behind(late):
    async def cuts_streams(peer: Peer) -> None:
        while True:
            if b"stream" in (await peer.request()).body:
                await peer.send(STREAM)
                return
            await peer.send(OK)

    many = "retry_budget: {ratio: 1, floor: 1000 per minute}"
    async with cutting(script=cuts_streams, upstream=many) as (proxy, _, _clock):
        arming, pauses = Arming(proxy), proxy.proxy._admission._pauses
        for number in range(1, MOST_SUSPENSIONS):
            await post(proxy, asked(number))
            body = asked(number, stream="")
            async with connect(proxy.url) as raw:
                arming.next_call(number, late=late)
                await raw.send(head("POST", MESSAGES, content_length=str(len(body)), **SESSION) + body)
                await until(lambda: pauses or arming.ended.is_set())
                for pause in pauses:
                    pause.set_result(None)
                await bounded(arming.ended.wait())
            await assert_nothing_is_held(proxy)
            assert not pauses
            assert arming.cancelled is not None
            if not arming.cancelled.happened:
                break
        assert number > 2, "a hold and an exchange"
