from __future__ import annotations

from proxy.core.call import Call


def test_a_call_without_a_run_is_a_run_of_its_caller() -> None:
    assert Call(route="chat", caller="ann", arrived_at=0.0).run == "ann"
    assert Call(route="chat", caller="ann", run="r1", arrived_at=0.0).run == "r1"


def test_a_call_states_nothing_that_was_not_asked_for() -> None:
    call = Call(route="chat", caller="ann", arrived_at=0.0)
    assert (call.rank, call.tool, call.is_retry, call.weight, call.deadline) == (
        0,
        "",
        False,
        1.0,
        float("inf"),
    )


def test_a_call_prints_as_a_failing_test_wants_to_read_it() -> None:
    call = Call(route="chat", caller="ann", arrived_at=0.0, tool="search", rank=2, is_retry=True)
    assert repr(call) == "<Call chat rank=2 caller=ann tool=search retry>"
