"""The simulated model and tool upstream: what `make run`, the tests and the load tests stand on.

It stands outside the proxy and shares no code with it. `behaviour.py` says what can be simulated, `ledger.py`
keeps what was seen (the oracle of the tests), `app.py` is one call from top to bottom.
"""

from proxy.demo.app import DemoUpstream
from proxy.demo.behaviour import Behaviour, Brownout, Cut, Hang, Mode, Ok, Outage, Refuse
from proxy.demo.ledger import Ending, Entry, Ledger
from proxy.demo.server import Running, serve_demo

__all__ = [
    "Behaviour",
    "Brownout",
    "Cut",
    "DemoUpstream",
    "Ending",
    "Entry",
    "Hang",
    "Ledger",
    "Mode",
    "Ok",
    "Outage",
    "Refuse",
    "Running",
    "serve_demo",
]
