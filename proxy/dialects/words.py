"""The sentences of a refusal: what happened, and what to do differently (not only how long to wait).

No sentence holds a digit or a word that clients scan for to retry on their own ("rate limit", "too many
requests", "overloaded", "timeout", …: reference/clients.md, finding 4). A test proves it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from proxy.core.verdict import Reason


class Words(NamedTuple):
    """`fact` and `advice` are for who reads the error of an API; `tool_advice` is for the model itself.

    The result of an MCP tool call is read by the model that made the call, which can do other work.
    """

    fact: str
    advice: str
    tool_advice: str


WORDS: Final = {
    Reason.BUCKET_EMPTY: Words(
        "The allowance is used up for the moment.",
        "Spread requests out, or send fewer and smaller ones.",
        "Do other work first.",
    ),
    Reason.QUOTA_SPENT: Words(
        "The quota of this period is used up.",
        "Only the next period brings more: put off what is not urgent.",
        "Go on without it, or finish with what you have.",
    ),
    Reason.CAP_REACHED: Words(
        "As many calls are in flight as may be at once.",
        "Run fewer calls in parallel.",
        "Do other work first, then make one call at a time.",
    ),
    Reason.QUEUE_FULL: Words(
        "Too many calls are waiting already.",
        "Run fewer calls in parallel, and put off what is not urgent.",
        "Do other work first, then make one call at a time.",
    ),
    Reason.WAITED_TOO_LONG: Words(
        "The call waited as long as it may and found no room.",
        "Run fewer calls in parallel, and put off what is not urgent.",
        "Do other work first, then make one call at a time.",
    ),
    Reason.DISPLACED: Words(
        "The call gave its place in the queue to a more urgent one.",
        "If it is urgent itself, send it with a higher priority.",
        "Do other work first.",
    ),
    Reason.SHED: Words(
        "Calls of this priority are turned away for now, to keep room for more urgent ones.",
        "Put this work off, or send it with a higher priority if it is urgent.",
        "Do other work first, or go on without it.",
    ),
    Reason.BREAKER_OPEN: Words(
        "The upstream is failing and gets no calls until it has recovered.",
        "Use another model or service meanwhile.",
        "Use another tool, or go on without it.",
    ),
    Reason.PAUSED: Words(
        "The operator has paused calls to this upstream.",
        "Use another model or service meanwhile.",
        "Use another tool, or go on without it.",
    ),
    Reason.DRAINING: Words(
        "This proxy is shutting down.",
        "Open a new connection then: another instance will answer.",
        "Do other work first.",
    ),
    Reason.STORE_DOWN: Words(
        "The shared counts cannot be reached, so no call can be admitted safely.",
        "Put off what is not urgent, and tell the operator if this lasts.",
        "Use another tool, or go on without it.",
    ),
    Reason.UPSTREAM_FAILED: Words(
        "The upstream failed to answer this call.",
        "It may have done the work: check before repeating anything that has effects.",
        "It may have done the work: check before repeating.",
    ),
    Reason.UPSTREAM_TIMEOUT: Words(
        "The upstream gave no answer in time.",
        "It may have done the work: check before repeating it, or ask for less at once.",
        "It may have done the work: check before repeating.",
    ),
    Reason.RETRY_BUDGET_SPENT: Words(
        "Retry budget spent: this call was repeated too often.",
        "Do not repeat this request now; continue with other work.",
        "Do not repeat it with the same arguments; continue with other work.",
    ),
    Reason.RUN_BUDGET_SPENT: Words(
        "Run budget spent.",
        "Stop this run and report what you have.",
        "Call no more tools; finish with what you have.",
    ),
    Reason.RUN_HALTED: Words(
        "This run was halted by its operator.",
        "Stop this run and report what you have.",
        "Call no more tools; finish with what you have.",
    ),
    Reason.TOO_DEAR: Words(
        "This request costs more than its allowance can ever hold.",
        "Split it or make it smaller: as it is, it can never pass.",
        "Split it or make it smaller: as it is, it can never pass.",
    ),
}
