"""How many connections a process may hold is not left to the shell that it was started from."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.kit.waiting import bounded

CHILD = """
import resource
from proxy.server import open_many_files
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
open_many_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE), hard)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the hard bound may be one that cannot be had")
async def test_the_soft_bound_is_raised_to_the_hard_one():
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, stdout=asyncio.subprocess.PIPE)
    said, _ = await bounded(child.communicate())
    soft, now, hard = said.split()
    assert soft == now == hard
