"""Hypothesis draws the same examples in every run.

It takes constants from our modules that are loaded, too. So all are, whichever tests this process is given.

`HYPOTHESIS_PROFILE=thorough pytest --timeout=0 tests/core` draws many new ones, for some minutes.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from pathlib import Path

from hypothesis import HealthCheck, settings

import proxy

SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile(
    "suite",
    max_examples=60,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=SLOW_IS_FINE,
)
settings.register_profile(
    "thorough",
    max_examples=2000,
    stateful_step_count=80,
    deadline=None,
    database=None,
    suppress_health_check=SLOW_IS_FINE,
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

LOADTESTS = str(Path(__file__).parents[1] / "loadtests")
APART = ("loadtests.locustfile", "__main__")  # locust replaces the sockets of whoever imports it

for path, prefix in ((proxy.__path__, "proxy."), ([LOADTESTS], "loadtests.")):
    for module in pkgutil.walk_packages(path, prefix):
        if not module.name.endswith(APART):
            importlib.import_module(module.name)
