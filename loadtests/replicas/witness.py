"""`backpressure`, and the instant of each of its grants noted in a file: 8 bytes each, a monotonic time.

    python -P loadtests/replicas/witness.py FILE serve CONFIG.yaml

The instant is the one that the grant was decided by: what the proxy's clock said last before it. Each is
written at once, so that a replica that is killed has told all of them.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from typing import Any, Final

from proxy import cli, server
from proxy.app import Proxy
from proxy.core.events import Admitted

HANDLERS: Final = "_on"
"""Telemetry's table of who is told what: the one place at which a compiled proxy can be overheard."""


def noted(file: int) -> None:
    """From now on every proxy that is made notes its grants in the file."""
    last = 0.0

    def clock() -> float:
        nonlocal last
        last = time.monotonic()
        return last

    def overheard(*args: Any, **kwargs: Any) -> Proxy:
        made = Proxy(*args, **kwargs, clock=clock)
        handlers = getattr(made.telemetry, HANDLERS)
        count = handlers[Admitted]

        def note(event: Admitted) -> None:
            os.write(file, struct.pack("d", last))
            count(event)

        handlers[Admitted] = note
        return made

    vars(server)["Proxy"] = overheard


if __name__ == "__main__":
    noted(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    sys.argv = ["backpressure", *sys.argv[2:]]
    cli.main()
