"""What operators and their probes ask. It shows, it decides nothing, and it is never shed."""

from proxy.control.app import control_app
from proxy.control.connection import ControlConnection
from proxy.control.token import check_exposure

__all__ = ["ControlConnection", "check_exposure", "control_app"]
