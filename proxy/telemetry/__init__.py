"""What happened, counted and told: the core's events in, Prometheus metrics and JSON lines out.

`Telemetry` is the only door. `catalog.py` lists every metric, `counts.py` holds the numbers, `families.py`
turns them into Prometheus families at scrape time and `exposition.py` those into bytes, `log.py` lists every
log line. Nothing is decided here.
"""

from proxy.telemetry.log import Log
from proxy.telemetry.telemetry import Telemetry

__all__ = ["Log", "Telemetry"]
