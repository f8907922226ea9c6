"""How the process keeps its memory: what the collector walks, and what goes back to the system."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""The names and numbers of mallopt(3)."""

KEPT_BYTES: Final = 8 * 1024 * 1024
"""So much that was freed stays with the process. By default 128 KiB do: then a prompt of 100 kB costs fresh
pages with every call, a third of its price, or none, as the heap happens to lie."""

OWN_PAGES_BYTES: Final = 1024 * 1024
"""From this size on memory comes from the system and goes back at once; by default from 128 KiB on."""


def settle_memory() -> None:
    """What is there at the start stays: the collector need not walk it again and again.

    Calls free what they use without its help; it is for the few cycles of waits and errors. Its default, a
    look every 700 objects, costs 2 % of a call; one every 50,000 let 50 MiB of them gather in five minutes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    keep_freed_pages()


def keep_freed_pages() -> bool:
    """Have malloc keep what was freed, up to `KEPT_BYTES`. False where it is not glibc's."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES) and mallopt(M_MMAP_THRESHOLD, OWN_PAGES_BYTES))
