"""What a body says about its run and its urgency: asked only where the headers leave it open."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from proxy.dialects.bodies import JSON_ERRORS

CODEX_TURN: Final = "x-codex-turn-metadata"

RUN_SOURCES: Final = {
    "body.metadata.user_id": "anthropic",
    "body.prompt_cache_key": "openai",
    f"body.params._meta.{CODEX_TURN}.session_id": "mcp",
}
"""Where a body names its run, as `runs.identify` spells it, and whose bodies do: one a dialect."""

URGENCY_SOURCES: Final = {"service_tier": "openai"}
"""The same for urgency, as `priority.hints[].body` spells it."""


class _OpenAI(msgspec.Struct):
    prompt_cache_key: Any = None
    service_tier: Any = None


class _Anthropic(msgspec.Struct):
    metadata: Any = None


class _Message(msgspec.Struct):
    params: Any = None


_OPENAI: Final = msgspec.json.Decoder(_OpenAI)
_ANTHROPIC: Final = msgspec.json.Decoder(_Anthropic)
_MESSAGES: Final = msgspec.json.Decoder(_Message | list[_Message])


class Said:
    """What a body said; b"" for nothing."""

    __slots__ = ("run", "urgency")

    def __init__(self, run: bytes = b"", urgency: bytes = b"") -> None:
        self.run = run
        self.urgency = urgency


SILENT: Final = Said()


class InBody:
    """What to look for in the bodies of one dialect.

    `run_before`: so many headers are asked for the run before the body is; -1: it is not asked. `urgency`:
    there is a hint in it.
    """

    __slots__ = ("dialect", "run_before", "urgency")

    def __init__(self, dialect: str, run_before: int, *, urgency: bool) -> None:
        self.dialect = dialect
        self.run_before = run_before
        self.urgency = urgency

    def read(self, body: bytes) -> Said:
        """Never raises: what cannot be read says nothing."""
        try:
            said = _READERS[self.dialect](body)
        except JSON_ERRORS:
            return SILENT
        return Said(said.run if self.run_before >= 0 else b"", said.urgency if self.urgency else b"")


def _openai(body: bytes) -> Said:
    asked = _OPENAI.decode(body)
    return Said(_text(asked.prompt_cache_key), _text(asked.service_tier))


def _anthropic(body: bytes) -> Said:
    """Claude Code puts JSON into the text, with the session among it; others write any name."""
    return Said(_session(_member(_ANTHROPIC.decode(body).metadata, "user_id")))


def _mcp(body: bytes) -> Said:
    if CODEX_TURN.encode() not in body:
        return SILENT
    content = _MESSAGES.decode(body)
    for message in content if isinstance(content, list) else [content]:
        run = _session(_member(_member(message.params, "_meta"), CODEX_TURN), or_else=False)
        if run:
            return Said(run)
    return SILENT


_READERS: Final = {"openai": _openai, "anthropic": _anthropic, "mcp": _mcp}


def _session(value: object, *, or_else: bool = True) -> bytes:
    """`session_id` of an object, also of one that is written as text; else, if so, the text itself."""
    named: object = value
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            named = msgspec.json.decode(value)
        except JSON_ERRORS:
            named = value
    if isinstance(named, dict):
        return _text(named.get("session_id"))
    return _text(named) if or_else else b""


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _text(value: object) -> bytes:
    return value.strip().encode() if isinstance(value, str) else b""
