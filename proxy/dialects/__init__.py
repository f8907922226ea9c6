"""How each API speaks: bytes in → facts, refusal in → bytes. Pure functions; no I/O, no clock.

Read `base.py` for what a dialect must do and `refusal.py` for what all of them say.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from proxy.dialects.anthropic import Anthropic
from proxy.dialects.base import Answer, Ask, Dialect, Malformed
from proxy.dialects.fingerprint import digest
from proxy.dialects.gemini import Gemini
from proxy.dialects.mcp import Mcp
from proxy.dialects.openai import OpenAI
from proxy.dialects.rest import Rest

__all__ = ["DIALECTS", "Answer", "Ask", "Dialect", "Malformed", "dialect_named", "digest"]

_ALL: tuple[Dialect, ...] = (OpenAI(), Anthropic(), Gemini(), Mcp(), Rest())

DIALECTS: Mapping[str, Dialect] = MappingProxyType({dialect.name: dialect for dialect in _ALL})
"""Every dialect by its name in the configuration (`upstreams.*.dialect`)."""


def dialect_named(name: str) -> Dialect:
    """The dialect of that name. Raises KeyError: the settings let no other name through."""
    return DIALECTS[name]
