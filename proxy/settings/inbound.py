"""`headers:`, `connections:` and `forwarded:`: what a caller may ask of the proxy, and what it is believed.

Every default has a precedent; `listener/bounds.py` names them one by one.
"""

from __future__ import annotations

from pydantic import Field

from proxy.settings.section import Section
from proxy.settings.units import Duration, Size
from proxy.settings.words import Whole, WholeOrZero


class Headers(Section):
    """Bounds of a request's head; above them the answer is 431, for the address alone 414.

    In use elsewhere: nginx 4 buffers of 8 KiB, Envoy 60 KiB and 100 headers, Node 16 KiB, AWS load balancers
    64 KiB with an address of 16 KiB.
    """

    max_bytes: Size = Field(
        default="64KiB", alias="max_size", validate_default=True, description="All header lines together."
    )
    max_count: Whole = Field(default=100, description="Header lines.")
    max_url_bytes: Size = Field(
        default="16KiB",
        alias="max_url",
        validate_default=True,
        description="The address: path and query. nginx takes 8KiB, AWS load balancers 16KiB.",
    )


class CallerConnections(Section):
    """Bounds of the callers' connections, in number and in time."""

    max_open: Whole = Field(
        default=10_000,
        description=(
            "Connections at once. Above it those make room that were idle longest, as in nginx; where none "
            "is idle the new one is cut, as by Envoy."
        ),
    )
    max_pipelined: Whole = Field(
        default=100,
        description=(
            "Requests sent ahead on one connection; the rest has to come on another. nginx bounds a "
            "connection to 1,000 requests."
        ),
    )
    keep_alive_s: Duration = Field(
        default="75s",
        alias="keep_alive",
        validate_default=True,
        description="Between two requests. nginx's keepalive_timeout, 75s.",
    )
    head_within_s: Duration = Field(
        default="60s",
        alias="head_within",
        validate_default=True,
        description="For a request's head, first byte to last; then 408. nginx's client_header_timeout, 60s.",
    )
    body_window_s: Duration = Field(
        default="30s",
        alias="body_window",
        validate_default=True,
        description="Over which the pace of a body is measured. nginx waits 60s for a byte, Apache 20s.",
    )
    body_bytes_per_s: Size = Field(
        default="240B",
        alias="body_per_second",
        validate_default=True,
        description="The slowest pace of a request's body; below it 408. Kestrel 240B, Apache 500B.",
    )


class Forwarded(Section):
    """What callers say of themselves in X-Forwarded-For, -Proto and -Host."""

    trusted_hops: WholeOrZero = Field(
        default=0,
        description=(
            "Proxies in front of this one that set these headers: Envoy's xff_num_trusted_hops. With 0 the "
            "upstream is told the scheme and host of the caller's own request; its address is added to "
            "X-Forwarded-For in any case."
        ),
    )
