"""What the YAML means: a file → validated settings → the core's policy, or every problem of it at once."""

from proxy.settings.expansion import shown
from proxy.settings.fileless import from_upstream
from proxy.settings.json_schema import json_schema
from proxy.settings.load import load, parse, read
from proxy.settings.policies import to_policy
from proxy.settings.problems import Problem, SettingsError
from proxy.settings.reload import Watcher, reread
from proxy.settings.schema import Settings

__all__ = [
    "Problem",
    "Settings",
    "SettingsError",
    "Watcher",
    "from_upstream",
    "json_schema",
    "load",
    "parse",
    "read",
    "reread",
    "shown",
    "to_policy",
]
