"""An upstream's own word has come: what becomes of it at the gate."""

from __future__ import annotations

from proxy.core.gate import Gate
from proxy.core.grant import Grant
from proxy.core.verdict import Refusal
from proxy.core.word import Word


def hear(gate: Gate, grant: Grant, word: Word, now: float) -> Refusal | None:
    """The word came with the head of the answer to this grant's call. Tell whoever was decided by it.

    Returns what to tell a caller whom the upstream refused: a time of its own; None to leave that as it came.
    """
    pool = grant.target.hear(grant, word, now)
    if pool is None:
        return None
    refusal: Refusal | None = None
    if word.refused and not word.tool:  # who was told by a text is told nothing else
        refusal = gate.promises.by_upstream(grant.call, grant.target, pool, now)
    if gate.room.size:  # there may be more than was thought
        gate.room.lines.try_again((pool.key,))
        gate.advance(now)
    return refusal
