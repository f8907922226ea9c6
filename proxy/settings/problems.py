"""What is wrong with a configuration, in words an operator can act on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""Where in the document: `("routes", 0, "buckets", 1, "rate")`."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault. `line` counts from 1; 0 where no line can be named (a missing file, an option).

    `key` is the dotted path, or "" for the file as a whole. `message` says what is wrong and, after a
    semicolon, what to write. It never holds a value that came from the environment or from a secret key.
    """

    source: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        """`file:line: key: what is wrong; what to write`."""
        where = f"{self.source}:{self.line}" if self.line else self.source
        return ": ".join(part for part in (where, self.key, self.message) if part)


class SettingsError(Exception):
    """The configuration cannot be used. `problems` holds every fault found, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def dotted(path: Path) -> str:
    """`("routes", 0, "path")` as `routes[0].path`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text
