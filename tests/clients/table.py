"""The table of docs/clients.md: played, written, and read again.

    python -m tests.clients.table [NAME …]     plays the clients whose names hold one of these, all without

Rows of clients that were not played, or whose environment is not there, stay as they are.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from proxy.core.verdict import Kind, kind_of
from tests.clients.driven import driving
from tests.clients.judging import Played, faults, play_all
from tests.clients.rows import CLIENTS, ROOT, Client
from tests.clients.rows_npm import AGENTS
from tests.clients.scenes import SCENES, Scene

DOCUMENT = ROOT / "docs" / "clients.md"
BEGIN, END = "<!-- Written by `make clients`: do not edit -->\n", "<!-- end -->\n"
EVERY = (*CLIENTS, *AGENTS)
RIGHT, WRONG = "✓", "✗"
TIMES = re.compile(r", .*")
COLUMNS = ("client", *(scene.name for scene in SCENES))
KINDS = (Kind.COME_BACK, Kind.UNAVAILABLE, Kind.NOT_AGAIN, Kind.STOP)
RAISED = ("client", *(kind.value for kind in KINDS))


@dataclass(frozen=True)
class Row:
    """One client as it was played: its version, a cell for each scene, and what it raised at each kind."""

    version: str
    cells: tuple[str, ...]
    raised: tuple[str, ...]

    def without_times(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What must be the same in the next run; how often who comes too early must ask is chance."""
        return tuple(
            WRONG if cell.startswith(WRONG) else TIMES.sub("", cell) for cell in self.cells
        ), self.raised


async def played(client: Client) -> tuple[Row, dict[str, list[str]]]:
    """Play a client's row; and what was wrong, by scene."""
    async with driving(client.command, **client.env) as driver:
        results = await play_all(client, driver)
        version = driver.client.rpartition(" ")[2]
    found = {scene.name: faults(scene, client, results[scene.name]) for scene in SCENES}
    cells = tuple(cell(scene, results[scene.name], right=not found[scene.name]) for scene in SCENES)
    return Row(version, cells, raised(client, results)), {name: each for name, each in found.items() if each}


def cell(scene: Scene, result: Played, *, right: bool) -> str:
    """`✓ 2, 3.01 of 3.00 s`: two requests, the second 3.01 s after an answer that said 3.00 s."""
    mark = RIGHT if right else WRONG
    if scene.reason is None:
        return mark
    waits = [
        f"{each.waited_ms / 1000:.2f} of {each.told_ms / 1000:.2f} s"
        if each.told_ms
        else f"{each.waited_ms / 1000:.2f} s"
        for each in result.attempts
        if each.waited_ms is not None
    ]
    return ", ".join([f"{mark} {len(result.attempts)}", *waits])


def raised(client: Client, results: Mapping[str, Played]) -> tuple[str, ...]:
    """The error at each kind of refusal, as the client's user sees it."""
    names = []
    for kind in KINDS:
        first = next(scene for scene in SCENES if scene.reason is not None and kind_of(scene.reason) is kind)
        said = results[first.name].raised
        names.append(f"`{said['error']}`" if "error" in said else "a tool's result" if said else "-")
    return tuple(names)


def read(text: str) -> dict[str, Row]:
    """The rows of a document, by the names of their clients."""
    generated = text.partition(BEGIN)[2].partition(END)[0]
    tables: list[dict[str, tuple[str, ...]]] = []
    for line in generated.splitlines():
        if not line.startswith("| ") or line.startswith("| ---"):
            continue
        name, *cells = (each.strip() for each in line.strip("|").split(" | "))
        if name == "client":
            tables.append({})
        else:
            tables[-1][name] = tuple(cells)
    if not tables:
        return {}
    seen, errors, _ = tables
    rows = {}
    for title, cells in seen.items():
        name, _, version = title.rpartition(" ")
        rows[name] = Row(version, cells, errors[name])
    return rows


def written(rows: Mapping[str, Row]) -> str:
    """What stands between the marks: the table, what is raised, the one line each, whose fault is what."""
    known = [client for client in EVERY if client.name in rows]
    wrong: dict[str, list[str]] = {}
    for client in known:
        for column, why in client.wrong.items():
            wrong.setdefault(f"**{client.name}** {why}", []).append(column)
    parts = [
        _table(
            COLUMNS, [(f"{each.name} {rows[each.name].version}", *rows[each.name].cells) for each in known]
        ),
        "### What it raises\n",
        _table(RAISED, [(each.name, *rows[each.name].raised) for each in known]),
        "### The one line\n",
        _table(
            ("client", "how it is pointed at the proxy"), [(each.name, f"`{each.point}`") for each in known]
        ),
        "### Whose fault\n",
        "\n".join(f"- {why} ({', '.join(columns)})" for why, columns in wrong.items()) + "\n",
    ]
    return BEGIN + "\n" + "\n".join(parts) + "\n" + END


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def save(rows: Mapping[str, Row]) -> None:
    """Write the document's generated part."""
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    DOCUMENT.write_text(before + written(rows) + rest.partition(END)[2])


async def main(names: list[str]) -> int:
    """Play, write, and say what differs from what is expected."""
    rows = read(DOCUMENT.read_text())
    unexpected = 0
    for client in EVERY:
        if names and not any(name in client.name for name in names):
            continue
        if not client.is_here():
            print(f"{client.name}: not installed here; its row stays")
            continue
        rows[client.name], found = await played(client)
        print(f"{client.name}: {' | '.join(rows[client.name].cells)}", flush=True)
        for name in found.keys() ^ client.wrong.keys():
            unexpected += 1
            print(f"  {name}: {found.get(name, 'right, and was thought to be wrong')}", flush=True)
    save(rows)
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
