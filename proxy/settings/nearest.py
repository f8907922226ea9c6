"""A misspelt word → the known one that was meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

ALIKE: Final = 0.6
"""How alike two words must be, 0 to 1; difflib's own default, at which `burts` finds `burst`."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, or None when nothing comes near."""
    by_fold = {each.lower().replace("-", "_"): each for each in known}
    found = get_close_matches(word.lower().replace("-", "_"), by_fold, n=1, cutoff=ALIKE)
    return by_fold[found[0]] if found else None


def advice(word: str, known: Iterable[str]) -> str:
    """`did you mean "burst"?`, or else `write "rate" or "burst"`."""
    words = list(known)
    guess = nearest(word, words)
    return f'did you mean "{guess}"?' if guess else "write " + " or ".join(f'"{each}"' for each in words)
