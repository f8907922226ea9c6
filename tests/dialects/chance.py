"""How hypothesis runs here: nothing depends on how fast the machine is at the moment."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
