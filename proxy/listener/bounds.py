"""What one caller may ask of us: bounds in bytes, counts and seconds, each with its precedent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of the caller's side. `settings/inbound.py` says the same in YAML."""

    most_head_bytes: int
    """Request line and headers. AWS load balancers 64 KiB, Envoy 60 KiB, nginx 4 x 8 KiB, Node 16 KiB."""

    most_url_bytes: int
    """The request's target. AWS load balancers 16 KiB, nginx 8 KiB."""

    most_headers: int
    """Header lines. Envoy and Apache 100."""

    most_pipelined: int
    """Requests on one connection that are not answered yet. nginx asks for a new connection after 1,000
    requests (`keepalive_requests`; 100 before 1.19.10), answered or not."""

    most_connections: int
    """Open at once. Envoy's advice for an edge is 50,000 for all its cores; this is one."""

    idle_s: float
    """Between two requests. nginx's keepalive_timeout: longer than the SDKs keep an idle connection, so that
    they close it, not we."""

    head_s: float
    """From a head's first byte to its last. nginx's client_header_timeout and Node's headersTimeout, 60 s."""

    body_bytes_per_s: float
    """The pace of a body, measured over each `body_window_s`. Kestrel's MinRequestBodyDataRate 240 bytes/s;
    Apache's mod_reqtimeout 500."""

    body_window_s: float
    """Between Apache's 20 s and nginx's client_body_timeout of 60 s. A window, no average since the start (as
    Kestrel and Apache take it): after a fast first megabyte that would bear an hour of silence."""
