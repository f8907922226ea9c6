"""How much of a process is the kernel's, the interpreter's and each library's, by perf(1) where it works.

py-spy sees Python alone. perf sees what that does: above all the system calls, which no profile of Python's
functions separates from them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

KERNEL: Final = "[kernel.kallsyms]"
CALLS: Final = {
    "ksys_write": "write",
    "__sys_sendto": "send",
    "__sys_sendmsg": "sendmsg",
    "ksys_read": "read",
    "__sys_recvfrom": "recv",
    "do_epoll_wait": "epoll_wait",
    "do_sys_poll": "poll",
}
"""Where the kernel's own name for a system call's work stands in its stacks."""
_LINE: Final = re.compile(r"\s*(\d+\.\d+)%\s+(?:\d+\.\d+%\s+)?(?:\[[k.]\]\s+)?(\S+)")


def record_command(pid: int, seconds: float, file: Path) -> list[str] | None:
    """perf, by the CPU's clock, for virtual machines seldom count cycles. None without perf."""
    perf = shutil.which("perf")
    if perf is None:
        return None
    at = ["-e", "cpu-clock", "-F", "999", "-g", "-p", str(pid), "-o", str(file)]
    return [perf, "record", "--quiet", *at, "--", "sleep", str(seconds)]


def by_library(file: Path) -> list[tuple[str, float]]:
    """Shares of the samples by shared object, the largest first; in the kernel also by system call."""
    libraries = _report(file, "--no-children", "--sort", "dso")
    inclusive = dict(_report(file, "--children", "--sort", "symbol"))
    found = []
    for name, share in libraries:
        found.append(("kernel" if name == KERNEL else Path(name).name, share))
        if name == KERNEL:
            calls = [
                (f"  > {call}", inclusive[symbol]) for symbol, call in CALLS.items() if symbol in inclusive
            ]
            found += sorted(calls, key=lambda one: -one[1])
    return found


def _report(file: Path, *options: str) -> list[tuple[str, float]]:
    command = ["perf", "report", "--stdio", "--call-graph", "none", "--input", str(file), *options]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return read_report(said)


def read_report(text: str) -> list[tuple[str, float]]:
    """The names of `perf report --stdio` and their shares (0 to 1), in its order."""
    rows = (_LINE.match(line) for line in text.splitlines() if not line.startswith("#"))
    return [(row[2], float(row[1]) / 100) for row in rows if row]
