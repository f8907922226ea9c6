"""Sampled stacks as py-spy writes them (`--format raw --threads`), and whose time each sample is.

A line is `outermost;…;innermost count`, a frame `function (file:line)`, and all frames are Python's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

LAYERS: Final = {
    "listener": ("listener", "wire"),
    "recognise": ("recognise", "identity", "routing", "dialects"),
    "admission": ("admission", "core", "stores"),
    "relay": ("upstream",),
    "telemetry": ("telemetry",),
    "pipeline": ("pipeline", "app"),
}
"""Our layers by the parts of proxy/ that make them up."""
LOOP: Final = "loop, sockets"
"""The loop itself: waiting, reading from sockets, calling us, and what uvloop writes later."""
WRITES: Final = "writes"
"""Innermost in `….Connection.write`: what a transport writes at once; mostly the kernel's time."""
_LAYER_OF: Final = {part: layer for layer, parts in LAYERS.items() for part in parts}


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of Python; `file` is absolute."""

    function: str
    file: str

    @property
    def part(self) -> str | None:
        """The part of proxy/ that it belongs to (`upstream`, `pipeline`); None for all other code."""
        _, found, rest = self.file.rpartition("/proxy/")
        return rest.partition("/")[0].removesuffix(".py") if found else None

    @property
    def shown(self) -> str:
        file = self.file.rpartition("/proxy/")[2] if self.part else Path(self.file).name
        return f"{self.function} ({file})"


Stack = tuple[Frame, ...]


def parse(text: str) -> Counter[Stack]:
    """The stacks of the main thread, outermost frame first, by how often each was seen.

    ValueError for a line that is none of py-spy's.
    """
    found: Counter[Stack] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        if frames and "MainThread" in thread:
            found[tuple(map(_frame, frames))] += int(count)
    return found


def _frame(text: str) -> Frame:
    """`function (file:line)`; the function may hold blanks and brackets, the file may have no line."""
    function, _, place = text.removesuffix(")").rpartition(" (")
    file, colon, line = place.rpartition(":")
    return Frame(function, file if colon and line.isdigit() else place)


def layer(stack: Stack) -> str:
    """Whose time a sample is: a write's, else our innermost layer's, else the loop's."""
    if stack[-1].function.endswith("Connection.write"):
        return WRITES
    for frame in reversed(stack):
        if frame.part in _LAYER_OF:
            return _LAYER_OF[frame.part]
    return LOOP


def own(stack: Stack) -> str:
    """The function whose own time a sample is, with what C did for it."""
    return stack[-1].shown


def shares(names: Iterable[tuple[str, int]]) -> list[tuple[str, float]]:
    """By name the share of all samples, the largest first."""
    counts: Counter[str] = Counter()
    for name, number in names:
        counts[name] += number
    total = counts.total()
    return [(name, number / total) for name, number in counts.most_common()]


def speedscope(stacks: Mapping[Stack, int], name: str) -> str:
    """The samples as a file for speedscope.app, which draws them as flame graphs."""
    index: dict[Frame, int] = {}
    samples = [[index.setdefault(frame, len(index)) for frame in stack] for stack in stacks]
    profile: dict[str, Any] = {"type": "sampled", "name": name, "unit": "none", "startValue": 0}
    profile |= {"endValue": sum(stacks.values()), "samples": samples, "weights": list(stacks.values())}
    return json.dumps(
        {
            "$schema": "https://www.speedscope.app/file-format-schema.json",
            "shared": {"frames": [{"name": frame.function, "file": frame.file} for frame in index]},
            "profiles": [profile],
        }
    )
