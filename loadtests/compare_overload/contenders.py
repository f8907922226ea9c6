"""Every proxy with the best that an expert writes for this upstream, which takes 10 calls of 100 ms at once.

`told`: its configuration names the capacity, which the expert knows. All of them tell who is refused to come
back after a second: none knows better, and without it SDKs come back after half of one. No tenant has a rate
of its own: one that is small enough to be fair under overload leaves capacity unused below it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from loadtests.cases import Site
from loadtests.compare_overload.schedule import Plan
from loadtests.configs import nginx_frame
from loadtests.envoy import envoy_json
from loadtests.peers import OURS, Contender, contenders

TOLD: Final = OURS
UNTOLD: Final = f"{OURS} untold"
ENVOY_UNTOLD: Final = "envoy adaptive"


@dataclass(frozen=True, slots=True)
class Entrant:
    """A contender under overload. `told`: it was told the capacity."""

    contender: Contender
    told: bool

    @property
    def name(self) -> str:
        return self.contender.name


def entrants(plan: Plan, free_port: Callable[[], int], *, install: bool) -> list[Entrant]:
    """Ours twice, then every peer that this machine has. LiteLLM is left out: it has no queue and no cap."""
    found = {one.name: one for one in contenders(free_port, install=install)}

    def ours(cap: str) -> Callable[[Site], str]:
        return lambda site: backpressure_yaml(site, free_port(), cap)

    chosen: list[tuple[str, str, Callable[[Site], str], bool]] = [
        (TOLD, OURS, ours(str(plan.slots)), True),
        (UNTOLD, OURS, ours("adaptive"), False),
        ("nginx", "nginx", partial(nginx_conf, plan), True),
        ("haproxy", "haproxy", partial(haproxy_cfg, plan), True),
        ("envoy", "envoy", partial(envoy_told, plan), True),
        (ENVOY_UNTOLD, "envoy", envoy_adaptive, False),
    ]
    return [
        Entrant(replace(found[kind], name=name, configure=configure), told)
        for name, kind, configure, told in chosen
        if kind in found
    ]


def backpressure_yaml(site: Site, admin_port: int, cap: str) -> str:
    """Ours as it is by default; the cap is a number or `adaptive`."""
    return f"""\
listen: 127.0.0.1:{site.port}
admin: {{listen: 127.0.0.1:{admin_port}}}
drain: 1s
upstreams:
  origin: {{url: "http://127.0.0.1:{site.upstream_port}", dialect: openai, concurrency: {cap}}}
routes:
  - {{name: chat, path: /openai/, upstream: origin}}
"""


def nginx_conf(plan: Plan, site: Site) -> str:
    """One leaky bucket at the upstream's rate, whose level at which one is refused depends on the class.

    A call waits in it until it is its turn (no `nodelay`), so that arrivals are spread evenly. `limit_conn`
    counts those that have left it. It has two above the slots, and the rate two percent above theirs: on the
    edge of congestion, for below it whatever was late is lost. (Tried: 100 to 110 %, 10 to 20.) nginx has no
    queue that waits for an answer to come; `queue` is of the commercial one.
    """
    longest_s = {"critical": 2.0, "normal": 0.2, "background": 0.1}
    places = "".join(
        f"""
    location /{name}/ {{
      internal; limit_req zone=all burst={plan.worth(wait_s)}; limit_conn slots {plan.slots + 2};
      proxy_pass http://origin/; proxy_http_version 1.1; proxy_set_header Connection "";
    }}"""
        for name, wait_s in longest_s.items()
    )
    http = f"""\
  upstream origin {{ server 127.0.0.1:{site.upstream_port}; keepalive 64; keepalive_requests 1000000000; }}
  client_body_buffer_size 256k;
  limit_req_zone $server_port zone=all:1m rate={1.02 * plan.capacity_per_s:.0f}r/s; limit_req_status 429;
  limit_conn_zone $server_port zone=slots:1m; limit_conn_status 429;
  map $http_x_priority $class {{ default normal; critical critical; background background; }}
  map $status $comes_back {{ default ""; 429 1; }}
  server {{
    listen 127.0.0.1:{site.port} backlog=4096;
    add_header Retry-After $comes_back always;
    location / {{ rewrite ^(.*)$ /$class$1 last; }}{places}
  }}
"""
    return nginx_frame(site.port, http)


def haproxy_cfg(plan: Plan, site: Site) -> str:
    """`maxconn` on the server, a queue before it in order of class, and less room in it for lower classes.

    Who would wait longer than half of the shortest patience is refused; who has gone leaves the queue.
    """
    return f"""\
global
  nbthread 1
  maxconn 9000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout queue 4s
frontend all
  bind 127.0.0.1:{site.port} backlog 4096
  acl critical req.hdr(x-priority) critical
  acl background req.hdr(x-priority) background
  http-request set-priority-class int(-1) if critical
  http-request set-priority-class int(1) if background
  http-request return status 429 hdr Retry-After 1 if background {{ queue(origin) ge {plan.worth(0.5)} }}
  http-request return status 429 hdr Retry-After 1 if !critical {{ queue(origin) ge {plan.worth(1)} }}
  http-request return status 429 hdr Retry-After 1 if {{ queue(origin) ge {plan.worth(4)} }}
  default_backend origin
backend origin
  option abortonclose
  http-reuse always
  http-error status 503 hdr Retry-After 1
  server origin 127.0.0.1:{site.upstream_port} maxconn {plan.slots}
"""


def envoy_told(plan: Plan, site: Site) -> str:
    """Circuit breakers: as many connections as the upstream has slots, and a queue before them.

    The queue knows no classes, and a priority of the router has connections of its own: capacity that is not
    shared. So what is not critical goes through a second listener of the same Envoy, and waits before that:
    no more of it is at the upstream or in its queue than there are slots, so a critical call waits behind no
    more than these, and behind other critical ones.
    """
    config = _envoy(site, _room(plan.slots, plan.worth(4)))
    resources = config["static_resources"]
    [origin], [outer] = resources["clusters"], resources["listeners"]
    [host] = _manager(outer)["route_config"]["virtual_hosts"]
    [to_origin] = host["routes"]
    inner = deepcopy(outer)
    inner |= {"name": "rest", "address": {"pipe": {"path": f"@backpressure-{site.port}"}}}
    rest = deepcopy(origin)
    [endpoints] = rest["load_assignment"]["endpoints"]
    endpoints["lb_endpoints"] = [{"endpoint": {"address": inner["address"]}}]
    rest |= {"name": "rest", "circuit_breakers": {"thresholds": [_room(plan.slots, plan.worth(1))]}}
    is_critical = [{"name": "x-priority", "string_match": {"exact": "critical"}}]
    critical = {**to_origin, "match": {**to_origin["match"], "headers": is_critical}}
    host["routes"] = [critical, {**to_origin, "route": {**to_origin["route"], "cluster": "rest"}}]
    resources["clusters"].append(rest)
    resources["listeners"].append(inner)
    return json.dumps(config, indent=1)


def envoy_adaptive(site: Site) -> str:
    """The adaptive concurrency filter, which is told nothing. It takes every class alike.

    No buffer, for the times here are even, and windows of half a second: what did best at 1x and 10x of
    buffers of 0 to 5 %, windows of 0.1 to 1 s, the median or the 90th percentile.
    """
    gradient = {
        "sample_aggregate_percentile": {"value": 90},
        "concurrency_limit_params": {"concurrency_update_interval": "0.5s", "max_concurrency_limit": 1000},
        "min_rtt_calc_params": {
            "interval": "30s",
            "request_count": 25,
            "jitter": {"value": 10},
            "min_concurrency": 5,
            "buffer": {"value": 0},
        },
    }
    settings = {
        "gradient_controller_config": gradient,
        "enabled": {"default_value": True, "runtime_key": "adaptive"},
        "concurrency_limit_exceeded_status": {"code": "TooManyRequests"},
    }
    kind = "adaptive_concurrency"
    typed = f"type.googleapis.com/envoy.extensions.filters.http.{kind}.v3.AdaptiveConcurrency"
    config = _envoy(site, _room(10_000, 10_000))
    [listener] = config["static_resources"]["listeners"]
    admission = {"name": f"envoy.filters.http.{kind}", "typed_config": {"@type": typed, **settings}}
    _manager(listener)["http_filters"].insert(1, admission)  # after the buffer, which keeps the connection
    return json.dumps(config, indent=1)


def _envoy(site: Site, room: dict[str, int]) -> dict[str, Any]:
    """Envoy as `make compare` has it, with this room at the upstream, and a time with its refusals."""
    config: dict[str, Any] = json.loads(envoy_json(site, reads_body_first=True))
    resources = config["static_resources"]
    resources["clusters"][0]["circuit_breakers"]["thresholds"] = [room]
    is_refusal = {"comparison": {"op": "GE", "value": {"default_value": 429, "runtime_key": "refusal"}}}
    mapper = {
        "filter": {"status_code_filter": is_refusal},
        "headers_to_add": [{"header": {"key": "retry-after", "value": "1"}}],
    }
    _manager(resources["listeners"][0])["local_reply_config"] = {"mappers": [mapper]}
    return config


def _room(connections: int, pending: int) -> dict[str, int]:
    return {"max_connections": connections, "max_requests": 10_000, "max_pending_requests": pending}


def _manager(listener: dict[str, Any]) -> dict[str, Any]:
    manager: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager
