"""The timer of admission: whoever waits is woken when what it lacks now comes, not only by those who end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.admission import Admission, Lease
from proxy.core.call import Call
from proxy.core.verdict import Outcome
from proxy.core.waiting import Waiter
from tests.kit.story import Story, bucket
from tests.kit.waiting import BOUND_S, bounded


class Stays:
    """A caller that does not leave."""

    gone = False

    def on_gone(self, callback: Callable[[], None] | None) -> None: ...


def enter(admission: Admission) -> Lease | Waiter:
    verdict = admission.enter(Call(route="chat", caller="ann", arrived_at=0.0), "api")
    assert isinstance(verdict, Lease | Waiter)
    return verdict


async def test_who_gets_a_permit_and_then_lacks_of_a_bucket_is_woken_when_that_has_refilled():
    # It waited for somebody to end, and the timer was set for when it would have waited too long.
    story = Story().cap(1).queue(5, max_age_s=3 * BOUND_S).buckets(bucket(20.0))
    admission = Admission(story.gate)
    first = enter(admission)
    waiter = enter(admission)
    assert isinstance(first, Lease)
    assert isinstance(waiter, Waiter)
    waiting = asyncio.ensure_future(admission.wait(waiter, Stays()))
    await asyncio.sleep(0)
    with first:
        first.outcome = Outcome.SUCCEEDED
    lease = await bounded(waiting)
    assert isinstance(lease, Lease)
    with lease:
        pass
    admission.close()
