"""A reader of Dockerfiles: as much of the format as ours uses."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    """One instruction: its keyword in capitals, its flags (`--from=build`) and the rest on one line."""

    keyword: str
    flags: tuple[str, ...]
    rest: str

    @property
    def words(self) -> list[str]:
        """The arguments of the exec form (a JSON list), or the words of the shell form."""
        return list(json.loads(self.rest)) if self.rest.startswith("[") else self.rest.split()


def read(text: str) -> list[list[Instruction]]:
    """The stages in order, each beginning with its FROM; what stands before the first FROM is left out."""
    stages: list[list[Instruction]] = []
    for line in _joined(text):
        keyword, _, rest = line.partition(" ")
        flags = []
        while rest.startswith("--"):
            flag, _, rest = rest.partition(" ")
            flags.append(flag)
            rest = rest.lstrip()
        instruction = Instruction(keyword.upper(), tuple(flags), rest.strip())
        if instruction.keyword == "FROM":
            stages.append([])
        if stages:
            stages[-1].append(instruction)
    return stages


def _joined(text: str) -> list[str]:
    """The lines without comments, each with its continuations on one line."""
    lines: list[str] = []
    open_line = ""
    for raw in text.splitlines():
        if not raw.strip() or raw.lstrip().startswith("#"):
            continue
        open_line += raw.strip()
        if open_line.endswith("\\"):
            open_line = open_line[:-1].rstrip() + " "
        else:
            lines.append(open_line)
            open_line = ""
    assert not open_line, "the last line is continued into nothing"
    return lines
