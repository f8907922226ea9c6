"""Every SDK and agent that installs from npm, in every scene. `make test-agents` runs it: it needs node."""

from __future__ import annotations

import os

import pytest

from tests.clients.rows_npm import AGENTS
from tests.clients.table import DOCUMENT, played, read

if "BACKPRESSURE_AGENTS" not in os.environ:
    pytest.skip("the clients of npm: `make test-agents` runs them", allow_module_level=True)

ROWS = read(DOCUMENT.read_text())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("client", AGENTS, ids=lambda client: client.name)
async def test_an_agent_does_the_right_thing_in_every_scene(client):
    if not client.is_here():
        pytest.skip("node, npm or a package is not to be had")
    row, found = await played(client)
    unexpected = {name: found.get(name) for name in found.keys() ^ client.wrong.keys()}
    assert not unexpected, (
        "not as the row says; where the client has changed, so should tests/clients/rows_npm.py"
    )
    assert row.without_times() == ROWS[client.name].without_times(), "`make clients` writes docs/clients.md"
