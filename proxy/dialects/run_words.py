"""The sentences of a run's budgets: which one is spent, and what its model can do about that.

As in `words.py` no sentence holds a digit or a word that clients scan for; the same test proves it.
"""

from __future__ import annotations

from typing import Final

from proxy.dialects.words import Words

_STOP: Final = "Stop this run and report what you have."
_FINISH: Final = "Call no more tools; finish with what you have."

RUN_WORDS: Final = {
    "calls": Words("Run budget spent: this run has made all the calls that it may make.", _STOP, _FINISH),
    "tokens": Words(
        "Run budget spent: what is left of this run's tokens is less than this call needs.", _STOP, _FINISH
    ),
    "money": Words(
        "Run budget spent: what is left of this run's money is less than this call costs.", _STOP, _FINISH
    ),
    "wall_time": Words("Run budget spent: the time that this run may take is over.", _STOP, _FINISH),
    "retries": Words(
        "Run budget spent: this run has repeated as many calls as it may.",
        "Do not repeat this request; go on with other work, or stop and report what you have.",
        "Do not repeat it; go on with other work, or finish with what you have.",
    ),
    "agents": Words(
        "Run budget spent: this run has started as many agents as it may.",
        "Start no more agents; let those that there are do the work, and report what you have.",
        "Start no more agents; let those that there are do the work.",
    ),
    "depth": Words(
        "Run budget spent: this agent is further from the first one of its run than any may be.",
        "Stop this agent; the one that started it can do the work itself.",
        "Finish here; the agent that started this one can do the work itself.",
    ),
}
"""By `Refusal.budget`; any other is told in the words of its reason."""
