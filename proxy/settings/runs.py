"""`runs:` how it is told which agent task a call belongs to."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

from proxy.dialects.in_body import RUN_SOURCES
from proxy.settings.environment import WrongValueError, shown
from proxy.settings.nearest import advice
from proxy.settings.section import Section
from proxy.settings.words import HEADER, header_name, text

IN_BODY: Final = "body."

DEFAULT: Final = (
    "x-run-id",
    "x-claude-code-session-id",
    "session-id",
    "thread-id",
    "x-session-affinity",
    "x-session-id",
    "body.params._meta.x-codex-turn-metadata.session_id",
    "mcp-session-id",
)
"""What agents were seen to send (reference/clients.md, "Recognising retries and runs"), in that order.

Only what costs no reading: bodies of MCP are read in any case. `traceparent` is not among them, for a client
that is traced by call and not by task sends another one with each retry, which would then be none.
"""


def source(value: object) -> str:
    """A header's name in lower case, or one of the places in a body."""
    word = text(value)
    if not word.startswith(IN_BODY):
        return header_name(value)
    if word in RUN_SOURCES:
        return word
    raise WrongValueError(f"{shown(value)} is no place that names a run; {advice(word, RUN_SOURCES)}")


Source = Annotated[
    str,
    BeforeValidator(source),
    WithJsonSchema(
        {"anyOf": [{"enum": list(RUN_SOURCES)}, {"type": "string", "pattern": rf"^(?!body\.){HEADER[1:]}"}]}
    ),
]


class Runs(Section):
    """Which agent task (run) a call belongs to."""

    identify: tuple[Source, ...] = Field(
        default=DEFAULT,
        description=(
            "The first of these that says something names the run; values are hashed, and one value of two "
            "callers names two runs. Headers, and places in bodies: body.metadata.user_id (anthropic; or the "
            "session_id in it), body.prompt_cache_key (openai), and what Codex puts into MCP calls. Where "
            "one of the first two is named, bodies up to `peek` are read before a decision if no header "
            "above it names the run. So neither is a default: to refuse before the body is the cheapest."
        ),
        examples=[["x-run-id", "body.prompt_cache_key"]],
    )
