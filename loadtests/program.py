"""A measurement as a program: its options, where it writes what it found, and how it ends."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from loadtests.running import StartError, end_on_sigterm

RESULTS: Final = Path(__file__).parent / "results"


def parser_of(name: str, document: str, writes: str) -> argparse.ArgumentParser:
    """The options of `make NAME`, told by the first line of its module's docstring; `--results` is one."""
    parser = argparse.ArgumentParser(prog=f"make {name}", description=document.partition("\n")[0])
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"folder for {writes}")
    return parser


def place(folder: Path, name: str) -> Path:
    """`NAME-DATE-TIME` in the folder, which is made: what a run writes has this path and a suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / time.strftime(f"{name}-%Y%m%d-%H%M%S")


def write_json(folder: Path, name: str, found: Mapping[str, Any]) -> Path:
    """Write what a run found into the folder; the file."""
    file = place(folder, name).with_suffix(".json")
    file.write_text(json.dumps(found, indent=2) + "\n")
    return file


def finish(main: Callable[[], int]) -> NoReturn:
    """Run `main` and exit with its status; with 1 and the reason on stderr when something did not start."""
    end_on_sigterm()
    try:
        sys.exit(main())
    except (StartError, subprocess.SubprocessError) as problem:
        sys.exit(str(problem))
    except KeyboardInterrupt:
        sys.exit(130)
