"""Was the time told true? Of those who came back when told: who was let in, and could it have been earlier?

Regret is told in a fluid's terms: if a share of the upstream lay idle between the telling and the time told,
then all who were told could have been served earlier by that share.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from statistics import median
from typing import Final

from loadtests.simulate.ledger import Ledger

NAN: Final = float("nan")
BIN_S: Final = 0.1
GRACE_S, GRACE_SHARE = 1.0, 0.1
"""Whoever is let in within this of his return was told the truth: he is not asked to come a third time."""
EARLIER: Final = 0.2


def honesty(
    ledger: Ledger, window: tuple[float, float], best_n: int, seconds: float, broken_at: float = 0.0
) -> dict[str, float]:
    """Of the returns within the window, and of the times told that lie in it.

    `kept_told_since`: of the returns to times told since `broken_at`. What was promised before an upstream
    lost most of its capacity is owed to more callers than it has room for, whatever is done then.
    """
    begun, ended = window
    returns = [row for row in ledger.returns if begun <= row[2] < ended]
    found = {"returns": float(len(returns)), "promises": float(len(ledger.promises))}
    if not returns:
        return found
    idle = _idle_since_start(ledger, best_n, seconds)
    kept = [0.0 <= row[3] <= max(GRACE_S, GRACE_SHARE * row[1]) for row in returns]
    regrets = [_share(idle, row[0], row[2]) for row in returns if row[1] >= BIN_S]
    since = [is_kept for row, is_kept in zip(returns, kept, strict=True) if row[0] >= broken_at]
    for rank, name in enumerate(("critical", "normal", "batch")):
        own = [is_kept for row, is_kept in zip(returns, kept, strict=True) if row[4] == rank]
        found[f"kept_{name}"] = sum(own) / len(own) if own else NAN
    herd, least = _herd([row[2] for row in returns], begun, ended), _least_herd(ledger, begun, ended)
    return found | {
        "kept": sum(kept) / len(kept),
        "kept_told_since": sum(since) / len(since) if since else NAN,
        "kept_at_once": sum(row[3] == 0.0 for row in returns) / len(returns),
        "told_s": median(row[1] for row in returns),
        "regret": median(regrets) if regrets else NAN,
        "much_too_late": sum(regret > EARLIER for regret in regrets) / len(regrets) if regrets else NAN,
        "herd": _herd([due for _, due in ledger.promises], begun, ended),
        "herd_returned": herd,
        "herd_least": least,
        "herd_over_least": herd / least if least else NAN,
    }


def _herd(instants: Sequence[float], begun: float, ended: float) -> float:
    """The busiest tenth of a second to the mean one."""
    bins = [0] * round((ended - begun) / BIN_S)
    for at in instants:
        index = int((at - begun) / BIN_S)
        if 0 <= index < len(bins) and at >= begun:
            bins[index] += 1
    mean = sum(bins) / len(bins)
    return max(bins) / mean if mean else NAN


def _least_herd(ledger: Ledger, begun: float, ended: float) -> float:
    """That of the same returns, were all times promised exactly as far apart: no proxy knows who will return.

    With eight returns in a tenth of a second, of twelve who were told so, it is 1.5.
    """
    due = sorted(due for _, due in ledger.promises if begun <= due < ended)
    apart_s = (ended - begun) / max(1, len(due))
    returned = {row[2] for row in ledger.returns}
    even = [begun + (nth + 0.5) * apart_s for nth, at in enumerate(due) if at in returned]
    return _herd(even, begun, ended)


def _idle_since_start(ledger: Ledger, best_n: int, seconds: float) -> list[float]:
    """The sum of the idle shares of the upstream up to each tenth of a second."""
    busy = [0.0] * (int(seconds / BIN_S) + 2)
    last = len(busy) - 1
    for attempt in ledger.sent:
        if attempt.begun_at < 0.0:
            continue
        since, until = attempt.begun_at, attempt.ended_at
        first, final = min(int(since / BIN_S), last), min(int(until / BIN_S), last)
        for index in range(first, final + 1):
            busy[index] += min(until, (index + 1) * BIN_S) - max(since, index * BIN_S)
    return [0.0, *accumulate(max(0.0, 1.0 - one / (best_n * BIN_S)) for one in busy)]


def _share(since_start: list[float], since: float, until: float) -> float:
    last = len(since_start) - 1
    first, final = min(int(since / BIN_S), last), min(int(until / BIN_S), last)
    return (since_start[final] - since_start[first]) / (final - first) if final > first else 0.0
