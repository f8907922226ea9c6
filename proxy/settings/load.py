"""A YAML file → Settings, or every problem of it at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from proxy.settings.checks import note_contradictions
from proxy.settings.document import Document
from proxy.settings.expansion import expand
from proxy.settings.faults import note_faults
from proxy.settings.problems import Problem, SettingsError
from proxy.settings.schema import Settings
from proxy.settings.written import filled_in

LARGEST_FILE_BYTES: Final = 4 * 2**20


def load(path: Path, env: Mapping[str, str]) -> Settings:
    """The settings in a file, with `${NAME}` taken from `env`. Raises SettingsError."""
    return read(path, env)[1]


def parse(text: str, source: str, env: Mapping[str, str]) -> Settings:
    """The settings in YAML text. `source` names it in errors; relative paths begin at its folder."""
    return settle(_document(text, source, env))


def read(path: Path, env: Mapping[str, str]) -> tuple[Document, Settings]:
    """As `load`, with the document beside the settings. Raises SettingsError."""
    document = _document(_text_of(path), str(path), env)
    return document, settle(document)


def settle(document: Document) -> Settings:
    """The settings that a document states. Raises SettingsError with all of its problems."""
    settings: Settings | None = None
    if document.value:
        expand(document)
        note_contradictions(document)
        try:
            settings = Settings.model_validate(
                filled_in(document.value), context={"folder": Path(document.source).parent}
            )
        except ValidationError as error:
            note_faults(document, error)
    elif not document.problems:
        document.fault((), "the file is empty; write at least upstreams and routes")
    if document.problems or settings is None:
        raise SettingsError(document.problems)
    return settings


def _document(text: str, source: str, env: Mapping[str, str]) -> Document:
    document = Document(source, env)
    document.read(text)
    return document


def _text_of(path: Path) -> str:
    problem = ""
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE_BYTES + 1)
        if len(raw) > LARGEST_FILE_BYTES:
            problem = "the file is larger than 4 MiB; is it the right one?"
        else:
            return raw.decode("utf-8")
    except FileNotFoundError:
        problem = "there is no such file; write the path of a YAML file"
    except IsADirectoryError:
        problem = "this is a folder; write the path of a YAML file"
    except PermissionError:
        problem = "the file may not be read by this user; change its owner or mode"
    except UnicodeDecodeError:
        problem = "the file is not UTF-8; save it as UTF-8"
    except OSError as error:
        problem = f"the file cannot be read: {error.strerror}"
    raise SettingsError([Problem(str(path), 0, "", problem)])
