"""What ties the one who carries a call to the permit that it runs under."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable


class Leash(ABC):
    """Told of the beginning of an answer; ends what is carried. A base class, for the speed of its calls."""

    @abstractmethod
    def answered(self, silent_s: float) -> None:
        """A good answer has begun, after so long a wait for it; its end will take a while."""
        ...

    @abstractmethod
    def on_cut(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` when the call is to be given up, though nothing has come of it. None: no longer."""
        ...
