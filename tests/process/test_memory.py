"""What the process tells malloc: that what was freed is used again without asking the system for pages."""

from __future__ import annotations

import subprocess
import sys

FAULTS = """
import ctypes, resource
from proxy.memory import keep_freed_pages

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def prompts(size=100_000):
    held = [libc.malloc(size) for _ in range(8)]
    for block in held:
        libc.memset(block, 1, size)
    for block in reversed(held):
        libc.free(block)

assert keep_freed_pages() is hasattr(libc, "mallopt")
prompts()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    prompts()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_prompts_that_come_and_go_take_no_new_pages() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 100, "glibc's defaults: 16,000"
