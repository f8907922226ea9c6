"""Every real client of the package index, in every scene: it does what docs/clients.md says."""

from __future__ import annotations

import pytest

from tests.clients.rows import CLIENTS
from tests.clients.table import COLUMNS, DOCUMENT, EVERY, RIGHT, TIMES, WRONG, played, read

ROWS = read(DOCUMENT.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
async def test_a_client_does_the_right_thing_in_every_scene(client):
    if not client.is_here():
        pytest.skip(f"no environment {client.environment}: `make test` installs it")
    row, found = await played(client)
    unexpected = {name: found.get(name) for name in found.keys() ^ client.wrong.keys()}
    assert not unexpected, (
        "not as the row says; where the client has changed, so should tests/clients/rows.py"
    )
    assert row.without_times() == ROWS[client.name].without_times(), "`make clients` writes docs/clients.md"


def test_the_table_has_a_row_for_every_client_and_a_cell_for_every_scene():
    assert [client.name for client in EVERY] == list(ROWS)
    for client in EVERY:
        row = ROWS[client.name]
        assert len(row.cells) == len(COLUMNS) - 1
        for name, cell in zip(COLUMNS[1:], row.cells, strict=True):
            mark = WRONG if name in client.wrong else RIGHT
            assert TIMES.sub("", cell).split()[0] == mark, f"{client.name}, {name}: {cell}"


def test_every_fault_of_a_client_names_its_file_and_line():
    for client in EVERY:
        for why in client.wrong.values():
            assert any(mark in why for mark in (".py:", ".rs:", "binary")), why
