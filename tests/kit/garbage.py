"""What only the garbage collector would find."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """Of what becomes garbage meanwhile that only the collector can free: how many of each class of ours."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        names = (f"{type(each).__module__}.{type(each).__name__}" for each in gc.garbage)
        found.update(name for name in names if name.startswith("proxy.") and ".demo." not in name)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
