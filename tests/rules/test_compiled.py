"""What compiled code gets wrong must not be written in the modules that are compiled (setup.py)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STOPS = (ast.Await, ast.AsyncWith, ast.AsyncFor, ast.Yield, ast.YieldFrom)


def hot_modules() -> list[Path]:
    """The list of setup.py, as it would build it here."""
    source = (ROOT / "setup.py").read_text().rpartition("setup(ext_modules=")[0]
    names: dict[str, object] = {}
    exec(compile(source, "setup.py", "exec"), names)  # our own file, less its last line
    found = names["hot_modules"]
    assert callable(found)
    return [ROOT / name for name in found(ROOT)]


def stops_while_handling(tree: ast.AST) -> Iterator[int]:
    """Lines that may suspend a coroutine while an exception is on its way through it.

    `async with asyncio.timeout(…)` is none: its end never suspends.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Try):
            for part in (*node.handlers, *node.finalbody):
                yield from (inner.lineno for inner in ast.walk(part) if isinstance(inner, STOPS))
        elif isinstance(node, ast.AsyncWith) and not all(
            ast.unparse(item).startswith("asyncio.timeout(") for item in node.items
        ):
            yield node.lineno


@pytest.mark.parametrize("module", hot_modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_awaited_while_an_exception_is_handled(module: Path) -> None:
    assert list(stops_while_handling(ast.parse(module.read_text()))) == []


def test_the_rule_finds_what_it_is_about() -> None:
    awaiting = "async def f():\n try:\n  await a\n finally:\n  await b\n"
    leaving = "async def f():\n async with asyncio.timeout(1), other:\n  await a\n"
    assert list(stops_while_handling(ast.parse(awaiting))) == [5]
    assert list(stops_while_handling(ast.parse(leaving))) == [2]


def test_the_modules_of_the_fast_path_are_compiled() -> None:
    names = {path.relative_to(ROOT / "proxy").as_posix() for path in hot_modules()}
    assert {"pipeline.py", "wire.py", "core/gate.py", "listener/reading.py", "upstream/relay.py"} <= names
