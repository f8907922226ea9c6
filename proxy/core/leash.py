"""What ties the one who carries a call to the permit that it runs under."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from proxy.core.word import Word


class Leash(ABC):
    """Told of the beginning of an answer; ends what is carried. A base class, for the speed of its calls."""

    @abstractmethod
    def answered(self, silent_s: float) -> None:
        """A good answer has begun, after so long a wait for it; its end will take a while."""
        ...

    @abstractmethod
    def heard(self, word: Word) -> float | None:
        """The upstream's own word on its allowances has come with the head of the answer.

        Where it refuses: in how many seconds this very caller should ask again; None to tell its own time.
        """
        ...

    @abstractmethod
    def on_cut(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` when the call is to be given up, though nothing has come of it. None: no longer."""
        ...
