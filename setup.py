"""Builds the wheel. With `BACKPRESSURE_COMPILE=1`, the modules that every call passes through are compiled.

mypyc turns the same annotated source into C: nothing is written twice, and without it everything works as
well, at half the speed. All else about the package stands in pyproject.toml.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import setup

HOT = (
    "admission", "advising", "answering", "app", "batch", "begun", "counting", "field_names", "identity",
    "outgoing", "peeking", "pipeline", "recognise", "retrying", "routing", "run_names", "status_lines",
    "urgency", "wire",
)  # fmt: skip
HOT_PACKAGES = ("core", "dialects", "listener", "upstream", "telemetry")
HOT_STORES = ("contact", "holdings", "memory", "shared")

BUILDING = {"bdist_wheel", "build_ext"}
"""A front end also asks for the metadata, twice, and compiling takes a minute."""

INTERPRETED = {
    "proxy/core/hints.py",  # msgspec reads the annotations of these itself
    "proxy/core/state.py",
    "proxy/dialects/in_body.py",  # and of these
    "proxy/dialects/jsonrpc.py",
    "proxy/dialects/shapes.py",
    "proxy/telemetry/catalog.py",  # a scrape, not a call
    "proxy/telemetry/exposition.py",
    "proxy/telemetry/families.py",
    "proxy/upstream/both_ways.py",  # these three await while an exception is on its way: see below
    "proxy/upstream/dial.py",
    "proxy/upstream/opening.py",
    "proxy/upstream/httpx_bridge.py",  # generators that await; and httpx is what its calls wait for
    "proxy/upstream/httpx_line.py",
}
"""What gains nothing, or what mypyc gets wrong.

In compiled code an exception that is being handled is the whole thread's, not the coroutine's: a module that
awaits in an `except` or a `finally` stays as it is (tests/rules/test_compiled.py).
"""

OWN_CALLS = [] if sys.platform == "win32" else ["-fvisibility=hidden", "-fno-plt"]
"""Nobody else calls the compiled functions by name. Told so, the compiler has them call each other directly
and inlines the small ones; else each such call goes through a table that the loader could change."""


def hot_modules(root: Path = Path()) -> list[str]:
    """The sources to compile, all into one group, so that they call each other as C functions."""
    proxy = root / "proxy"
    found = [proxy / f"{name}.py" for name in HOT] + [proxy / "stores" / f"{name}.py" for name in HOT_STORES]
    for package in HOT_PACKAGES:
        found += (proxy / package).glob("*.py")
    names = [path.relative_to(root).as_posix() for path in found if path.name != "__init__.py"]
    return sorted(name for name in names if name not in INTERPRETED)


def extensions() -> list[object]:
    """The compiled modules, or none unless asked for."""
    if os.environ.get("BACKPRESSURE_COMPILE") != "1" or not BUILDING & set(sys.argv):
        return []
    from mypyc.build import mypycify  # noqa: PLC0415 - only a build that compiles needs it

    # `make check` has checked the types; here the libraries may be absent, and are then taken as they come.
    options = ["--config-file=", "--ignore-missing-imports"]
    compiled = list(mypycify([*options, *hot_modules()], opt_level="3", debug_level="0"))
    for extension in compiled:
        extension.extra_compile_args = [*extension.extra_compile_args, *OWN_CALLS]  # it is shared by all
    return compiled


setup(ext_modules=extensions())
