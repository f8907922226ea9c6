"""`${NAME}` in a value → what the environment holds; `$${` stays a literal `${`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class WrongValueError(ValueError):
    """A value is not what is needed; says so in words fit for the operator."""


class Filled(str):
    """Text with values of the environment in it. `written` is what the file says and may be shown."""

    __slots__ = ("written",)
    written: str


def fill(text: str, env: Mapping[str, str]) -> str:
    """Replace each `${NAME}`. What comes from the environment is not looked into again.

    Raises WrongValueError, in words, for an unset variable, a name that is none, and a `${` without an end.
    """
    if "${" not in text:
        return text
    references = 0

    def replaced(match: re.Match[str]) -> str:
        nonlocal references
        if match[0] == "$${":
            return "${"
        references += 1
        name = match[1]
        if not match[2]:
            raise WrongValueError('"${" without its "}"; write ${NAME}, or $${ for a literal ${')
        if not _NAME.match(name):
            raise WrongValueError(
                "a variable is written ${NAME}, with letters, digits and underscores and no default; "
                "write $${ for a literal ${"
            )
        if name not in env:
            raise WrongValueError(f"the environment variable {name} is not set; set it before the start")
        return env[name]

    filled = _REFERENCE.sub(replaced, text)
    if not references:
        return filled
    result = Filled(filled)
    result.written = text
    return result


def shown(value: object) -> str:
    """A value as an error may print it: short, on one line, and never what the environment held."""
    text = value.written if isinstance(value, Filled) else str(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return '"' + "".join(c if c.isprintable() else "?" for c in text) + '"'
