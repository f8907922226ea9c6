"""How the proxies that are compared are told to do a case: all but Envoy, which has a file of its own.

Ours runs with every check on. The others do the least that the case asks for: one listener, one upstream with
kept connections, no access log, one worker. Whoever speaks TLS to the upstream verifies its certificate.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

from loadtests.cases import Case, Site

TLS_NAME: Final = "localhost"
"""In the certificate of the TLS upstream, beside 127.0.0.1: nginx compares no addresses (X509_check_host)."""
MOST_STREAMS: Final = 4096
"""Room for open streams where a proxy wants to be told: Envoy's bound is 1024 calls, nginx's is stated."""


def backpressure_yaml(site: Site, admin_port: int) -> str:
    """Ours, everything on: buckets of the caller, caps, queue, breaker, retry budget; metrics always are.

    No bound but the empty bucket is ever reached: the rest is paid for, and says yes.
    """
    scheme, tls = ("https", f"\n    tls: {{ca: {site.tls_ca}}}") if site.tls_ca else ("http", "")
    refusing = "\n      - {rate: 1 request/hour, burst: 1, per: caller}" if site.refuses else ""
    return f"""\
listen: 127.0.0.1:{site.port}
admin: {{listen: 127.0.0.1:{admin_port}}}
drain: 1s
upstreams:
  origin:
    url: {scheme}://127.0.0.1:{site.upstream_port}
    dialect: openai
    concurrency: {MOST_STREAMS}
    breaker: {{failure_ratio: 0.5, minimum_calls: 20, window: 30s}}
    retry_budget: {{ratio: 0.1, floor: 10 per minute}}{tls}
routes:
  - name: chat
    path: /openai/
    upstream: origin
    concurrency: {MOST_STREAMS}
    queue: {{size: 200, max_age: 10s}}
    buckets:
      - {{rate: 1000000 requests/second, burst: 1000000, per: caller}}
      - {{rate: 1000M tokens/second, burst: 1000M, per: caller}}{refusing}
"""


def nginx_conf(site: Site) -> str:
    """`limit_req` without burst is nginx's bucket. Connections are never retired within a run."""
    zone = spend = tls = ""
    at_once = "proxy_buffering off;" if site.case in (Case.SSE, Case.MEMORY) else ""
    if site.refuses:
        zone = "limit_req_zone $server_port zone=all:1m rate=1r/m; limit_req_status 429;"
        spend = "limit_req zone=all;"
    if site.tls_ca:
        tls = (
            f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {site.tls_ca}; "
            f"proxy_ssl_name {TLS_NAME}; proxy_ssl_server_name on;"
        )
    http = f"""\
  upstream origin {{ server 127.0.0.1:{site.upstream_port}; keepalive 64; keepalive_requests 1000000000; }}
  client_body_buffer_size 256k;
  {zone}
  server {{
    listen 127.0.0.1:{site.port};
    location / {{
      {spend}
      proxy_pass {"https" if tls else "http"}://origin;
      proxy_http_version 1.1; proxy_set_header Connection ""; {at_once} {tls}
    }}
  }}
"""
    return nginx_frame(site.port, http)


def nginx_origin_conf(
    port: int, answer: str, certificate: Path | None = None, key: Path | None = None
) -> str:
    """nginx as the upstream: the same JSON for every request. `answer` holds no quote of the single kind.

    With a certificate (PEM, its chain) and its key it speaks TLS.
    """
    tls = f"ssl_certificate {certificate}; ssl_certificate_key {key};" if certificate else ""
    listen = f"listen 127.0.0.1:{port}{' ssl' if certificate else ''};"
    http = f"""\
  default_type application/json;
  client_body_buffer_size 256k;
  server {{ {listen} {tls} location / {{ return 200 '{answer}'; }} }}
"""
    return nginx_frame(port, http)


def nginx_frame(port: int, http: str) -> str:
    """Of every nginx here: one process, and every file it makes in the folder it is started for (`-p`)."""
    parts = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = " ".join(f"{part}_temp_path {part}-{port};" for part in parts)
    files = min(2 * MOST_STREAMS, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    return f"""\
daemon off; master_process off; pid nginx-{port}.pid; error_log stderr crit;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
http {{
  access_log off; keepalive_requests 1000000000; {folders}
{http}}}
"""


def haproxy_cfg(site: Site) -> str:
    """A stick table that counts all calls of the hour together is HAProxy's bucket.

    Without http-no-delay it gathers events for some 100 ms, which its manual says of interactive traffic.
    """
    refuse = """
  stick-table type string len 8 size 16 expire 1h store http_req_rate(1h)
  http-request track-sc0 str(all)
  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1 }"""
    tls = f" ssl verify required ca-file {site.tls_ca} sni str({TLS_NAME}) verifyhost {TLS_NAME}"
    at_once = "\n  option http-no-delay" if site.case in (Case.SSE, Case.MEMORY) else ""
    return f"""\
global
  nbthread 1
defaults
  mode http{at_once}
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend all
  bind 127.0.0.1:{site.port}{refuse if site.refuses else ""}
  default_backend origin
backend origin
  http-reuse always
  server origin 127.0.0.1:{site.upstream_port}{tls if site.tls_ca else ""}
"""


def litellm_yaml(site: Site) -> str:
    """LiteLLM's proxy for one model of an OpenAI-compatible upstream; no key, no database, no callbacks.

    It starts without a master key only when it is told that this is meant: here it listens on loopback.
    """
    return f"""\
model_list:
  - model_name: demo-model
    litellm_params:
      model: openai/demo-model
      api_base: http://127.0.0.1:{site.upstream_port}/v1
      api_key: measured
general_settings:
  dangerously_permit_weak_or_unset_master_key: true
"""


def portkey_headers(site: Site) -> str:
    """Portkey's gateway has no configuration file: each call says in its headers whom it is for."""
    return f"""\
x-portkey-provider: openai
x-portkey-custom-host: http://127.0.0.1:{site.upstream_port}/v1
"""
