"""What operators and their probes ask. It shows; but for the halt of a run it changes nothing. Never shed."""

from proxy.control.app import control_app
from proxy.control.connection import ControlConnection
from proxy.control.token import check_exposure

__all__ = ["ControlConnection", "check_exposure", "control_app"]
