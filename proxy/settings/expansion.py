"""What a `preset` stands for, filled in beneath what the file states of an upstream.

Before anything is validated: what a preset says is checked as if it stood in the file, in the line of
`preset`. Whatever the file states wins; of `timeouts` and `breaker` each key by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from proxy.settings.document import Document
from proxy.settings.environment import Filled
from proxy.settings.presets import PRESETS, Preset
from proxy.settings.problems import Path
from proxy.settings.written import mapping

MERGED: Final = frozenset({"timeouts", "breaker"})
"""Of these each key stands by itself; anything else that a file states replaces the preset's whole."""

_WHOSE_ENV: Final = (
    "env is for an upstream with a preset, which knows the header; write such as "
    '{authorization: "Bearer ${NAME}"}'
)


def expand(document: Document) -> None:
    """Fill presets in. What is wrong with one is noted; what an unknown one would bring is not missed.

    A key of the environment is read only for `credentials: env`; otherwise each caller's own goes through.
    """
    upstreams = document.value.get("upstreams")
    if not isinstance(upstreams, dict):
        return
    document.value = {
        **document.value,
        "upstreams": {
            name: _expanded(document, ("upstreams", name), each) if isinstance(each, dict) else each
            for name, each in upstreams.items()
        },
    }


def _expanded(document: Document, here: Path, stated: dict[str, object]) -> dict[str, object]:
    word, path = stated.get("preset"), (*here, "credentials")
    preset = PRESETS.get(word) if isinstance(word, str) else None
    if preset is None:
        if "preset" in stated:
            document.unset |= {(*here, key) for key in ("url", "dialect")} - {(*here, key) for key in stated}
        elif stated.get("credentials") == "env":
            document.fault(path, _WHOSE_ENV)
        if stated.get("credentials") == "env":
            document.unset.add(path)
        return stated
    result: dict[str, object] = {"url": preset.url, "dialect": preset.dialect, **preset.limits, **stated}
    for key in MERGED & stated.keys():
        if isinstance(stated[key], dict):
            result[key] = mapping(preset.limits.get(key)) | mapping(stated[key])
    for key in result.keys() - stated.keys():
        document.stands_at((*here, key), (*here, "preset"))
    if result["url"] == "":
        message = f"is missing; the preset {word} needs your own, such as {preset.url_example}"
        document.fault((*here, "url"), message)
        document.unset.add((*here, "url"))
    if stated.get("credentials") == "env":
        result["credentials"] = _credentials(document, preset, path)
    return result


def _credentials(document: Document, preset: Preset, path: Path) -> dict[str, object]:
    if not preset.credentials:
        document.fault(path, "env has no effect, for this preset asks for no key; remove it")
    return {header: document.filled(form, path) for header, form in preset.credentials.items()}


def shown(document: Document) -> Iterator[str]:
    """Of each upstream with a preset, in YAML, what the preset speaks of as it holds now; never a secret."""
    for name, each in mapping(document.value.get("upstreams")).items():
        upstream = mapping(each)
        preset = PRESETS.get(str(upstream.get("preset")))
        if preset is None:
            continue
        yield f"  {name}:  # preset: {upstream['preset']}"
        for key in ("url", "dialect", *preset.limits):
            yield f"    {key}: {_written(upstream[key])}"
        rows = [
            f'{header}: "{_open(value) or "..." if value != preset.credentials.get(header) else value}"'
            for header, value in mapping(upstream.get("credentials")).items()
        ]
        if rows:
            yield f"    credentials: {{{', '.join(rows)}}}"


def _open(value: object) -> str:
    """What the file says of a secret from the environment; "" for one that stands in the file itself."""
    return value.written if isinstance(value, Filled) else ""


def _written(value: object) -> str:
    """As it may stand in a file. What came from the environment is shown by its name."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_written(each)}' for key, each in value.items())}}}"
    if isinstance(value, Filled):
        return f'"{value.written}"'
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
