"""`priority.hints`: what agents send by themselves, and which class of ours each value stands for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from proxy.dialects.in_body import URGENCY_SOURCES
from proxy.settings.environment import WrongValueError, shown
from proxy.settings.section import Section
from proxy.settings.words import HeaderName, Text, one_of, text

PRIORITY: Final = "priority"
"""The header of RFC 9218, whose values are urgencies."""

_URGENCIES: Final = r"([0-7])(?:-([0-7]))?"


def urgencies(written: object) -> tuple[str, ...]:
    """`3`, or `5-7`: the urgencies of RFC 9218 that one key of the mapping stands for."""
    found = re.fullmatch(_URGENCIES, text(written))
    if found is None or (found[2] or found[1]) < found[1]:
        raise WrongValueError(
            f"{shown(written)} is no urgency of that header; write 0 (the most urgent) to 7, or such as 5-7"
        )
    return tuple(str(each) for each in range(int(found[1]), int(found[2] or found[1]) + 1))


Body = Annotated[Literal["service_tier"], BeforeValidator(one_of(*URGENCY_SOURCES))]


class Hint(Section):
    """One header, or one member of the body, and the class that each of its values stands for."""

    header: HeaderName | None = Field(
        default=None,
        description=(
            "A header, such as Claude Code's x-claude-code-request-class (main, subagent, workflow, "
            "compaction, auxiliary). Of RFC 9218's `priority` the values are its urgencies: 0 to 7, or a "
            "range such as 5-7; a field without one counts as 3."
        ),
        examples=["x-claude-code-request-class"],
    )
    body: Body | None = Field(
        default=None,
        description=(
            "service_tier of an OpenAI body (auto, default, flex, scale, priority, fast). Bodies up to "
            "`peek` are then read before a call is decided, unless a header has said it."
        ),
    )
    by_value: dict[Text, Text] = Field(
        alias="map",
        description="Value: class. A value that is not here says nothing, and the next hint is looked at.",
        examples=[{"main": "normal", "auxiliary": "background"}],
    )

    @property
    def values(self) -> Iterator[tuple[str, str]]:
        """Each value, as it is looked up, and the name of its class."""
        for written, name in self.by_value.items():
            if self.header == PRIORITY:
                yield from ((each, name) for each in urgencies(written))
            else:
                yield written.strip().lower(), name


def values_of(hint: Mapping[str, object], written: str) -> tuple[str, ...]:
    """The values for which a key of `map` stands, in a hint as it is written. Raises WrongValueError."""
    is_priority = str(hint.get("header")).lower() == PRIORITY
    return urgencies(written) if is_priority else (written.strip().lower(),)
