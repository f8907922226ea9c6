"""Conformance: black-box cases through the whole proxy, with scripted bytes on both sides.

Every case names its category: `pytestmark = pytest.mark.conformance("framing")`. `make conformance` prints
how many of each there are, and how many hold.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import pytest_asyncio
import uvloop

from tests.kit.bench import Bench, bench_with

CATEGORY = "conformance"


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that serves; the relay's own tests (tests/upstream) run on asyncio's too."""
    return {"uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bench() -> AsyncIterator[Bench]:
    """One proxy for all cases of a module, which is `pytest.mark.asyncio(loop_scope="module")`."""
    async with bench_with() as bench:
        yield bench


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A case takes its category with it: to the process that prints the table."""
    for item in items:
        marker = item.get_closest_marker(CATEGORY)
        if marker is not None:
            item.user_properties.append((CATEGORY, marker.args[0]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table: a row for each category."""
    table: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            category = dict(getattr(report, "user_properties", ())).get(CATEGORY)
            if category is not None:
                table[category]["failed" if outcome == "error" else outcome] += 1
    if not table:
        return
    terminalreporter.section("conformance")
    columns = ("passed", "failed", "skipped")
    terminalreporter.write_line(f"{'category':<20}" + "".join(f"{column:>9}" for column in columns))
    for category, counts in sorted(table.items()):
        terminalreporter.write_line(f"{category:<20}" + "".join(f"{counts[column]:>9}" for column in columns))
    whole = sum(table.values(), Counter())
    terminalreporter.write_line(f"{'all':<20}" + "".join(f"{whole[column]:>9}" for column in columns))
