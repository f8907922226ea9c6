"""Where the store is, how to get in there, and how long a call may take."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Final

Node = tuple[str, int]
"""Host and port."""

LIMITS: Final = {"redis": 2, "sentinel": 6, "cluster": 6}
"""How many times `timeout_s` a whole call may take.

Two is one connect and one command. Behind sentinels, or in a cluster, a call that begins anew also asks the
seeds where to go, of which two may be silent, and may be sent on to another node.
"""


@dataclass(frozen=True, slots=True)
class Address:
    """How to reach the store.

    `kind` is "redis" (one server, the first of `hosts`), "sentinel" (`hosts` are the sentinels, `service` is
    the master's name with them) or "cluster" (`hosts` are some of its nodes). `username`, `password` and
    `database` are for the server; sentinels are asked without. TLS is for both. `ca`, `cert` and `key` are
    files; with `ca`, its authorities alone are trusted. A connect may take `timeout_s`, a command another.
    """

    kind: str
    hosts: tuple[Node, ...]
    username: str = ""
    password: str = ""
    database: int = 0
    service: str = ""
    tls: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""
    verify: bool = True
    timeout_s: float = 0.05


def context(address: Address) -> ssl.SSLContext:
    """Our side of TLS. Raises OSError or ssl.SSLError for a file that cannot be used."""
    made = ssl.create_default_context(cafile=address.ca or None)
    if address.cert:
        made.load_cert_chain(address.cert, address.key or None, password=lambda: b"")
    if not address.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made
