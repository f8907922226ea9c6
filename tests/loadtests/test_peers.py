"""What each compared proxy is configured to do: ours everything, the others the least."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from loadtests.cases import Case, Site
from loadtests.compare.bench import write_certificate
from loadtests.configs import (
    backpressure_yaml,
    haproxy_cfg,
    litellm_yaml,
    nginx_conf,
    nginx_origin_conf,
    portkey_headers,
)
from loadtests.envoy import envoy_json
from loadtests.origin import ANSWER
from loadtests.peers import OURS, contenders
from loadtests.running import free_port
from proxy.settings import parse, to_policy


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("tls"))


def site(case: Case, ca: Path | None = None, port: int = 1111) -> Site:
    return Site(case, port, 2222, ca)


@pytest.mark.parametrize("case", Case)
def test_ours_has_everything_on_and_an_empty_bucket_only_to_refuse(
    case: Case, certificates: tuple[Path, Path, Path]
) -> None:
    settings = parse(backpressure_yaml(site(case, certificates[2]), 3333), "compare.yaml", {})
    assert (settings.listen.port, settings.admin.listen.port) == (1111, 3333)
    policy = to_policy(settings)
    route, upstream = policy.routes["chat"], policy.upstreams["origin"]
    assert upstream.breaker
    assert upstream.retry_budget
    assert upstream.cap.slots > 1000
    assert route.cap
    assert route.queue.size
    assert {bucket.per for bucket in route.buckets} == {"caller"}
    assert route.buckets[0].burst == 1_000_000
    assert (route.buckets[1].unit, route.buckets[1].burst) == ("tokens", 1e9)
    assert [bucket.burst for bucket in route.buckets[2:]] == ([1.0] if case is Case.REFUSE else [])
    https = str(settings.upstreams["origin"].url).startswith("https")
    assert https == (case is Case.TLS)
    assert (settings.upstreams["origin"].tls.ca is not None) == https
    assert settings.upstreams["origin"].tls.verify


def http_filters(text: str) -> list[str]:
    [listener] = json.loads(text)["static_resources"]["listeners"]
    [chain] = listener["filter_chains"]
    [manager] = chain["filters"]
    assert "access_log" not in manager["typed_config"]
    return [one["name"].rpartition(".")[2] for one in manager["typed_config"]["http_filters"]]


def test_envoy_does_the_least_that_each_case_asks_for() -> None:
    assert http_filters(envoy_json(site(Case.FORWARD))) == ["router"]
    assert http_filters(envoy_json(site(Case.REFUSE))) == ["local_ratelimit", "router"]
    buffered = envoy_json(site(Case.REFUSE), reads_body_first=True)
    assert http_filters(buffered) == ["buffer", "local_ratelimit", "router"]


def cluster(text: str) -> dict[str, Any]:
    [found] = json.loads(text)["static_resources"]["clusters"]
    return found


def test_every_proxy_verifies_a_tls_upstream_and_only_that() -> None:
    ca = Path("/ca.pem")
    plain, tls = site(Case.FORWARD, ca), site(Case.TLS, ca)
    assert "transport_socket" not in cluster(envoy_json(plain))
    context = cluster(envoy_json(tls))["transport_socket"]["typed_config"]["common_tls_context"]
    assert context["validation_context"]["trusted_ca"] == {"filename": "/ca.pem"}
    assert context["validation_context"]["match_typed_subject_alt_names"]
    assert "proxy_ssl" not in nginx_conf(plain)
    assert "proxy_ssl_verify on; proxy_ssl_trusted_certificate /ca.pem;" in nginx_conf(tls)
    assert "proxy_pass https://" in nginx_conf(tls)
    assert "ssl" not in haproxy_cfg(plain)
    assert "ssl verify required ca-file /ca.pem" in haproxy_cfg(tls)


def test_only_the_refusing_configurations_hold_a_bucket() -> None:
    assert "limit_req" not in nginx_conf(site(Case.FORWARD))
    assert "limit_req zone=all;" in nginx_conf(site(Case.REFUSE))
    assert "deny" not in haproxy_cfg(site(Case.FORWARD))
    assert "deny_status 429" in haproxy_cfg(site(Case.REFUSE))


def test_events_are_passed_on_at_once_where_that_must_be_said() -> None:
    assert "proxy_buffering off;" in nginx_conf(site(Case.SSE))
    assert "option http-no-delay" in haproxy_cfg(site(Case.SSE))
    assert "proxy_buffering" not in nginx_conf(site(Case.FORWARD))
    assert "http-no-delay" not in haproxy_cfg(site(Case.FORWARD))


def test_nginx_keeps_every_file_in_its_folder() -> None:
    for text in (nginx_conf(site(Case.REFUSE, port=8081)), nginx_origin_conf(8081, ANSWER)):
        assert "pid nginx-8081.pid;" in text
        assert "access_log off;" in text
        assert "/dev/" not in text  # as root it would unlink its pid file there


def test_litellm_asks_the_upstream_as_an_openai_one() -> None:
    assert "api_base: http://127.0.0.1:2222/v1" in litellm_yaml(site(Case.FORWARD))


def test_every_call_tells_portkey_its_upstream() -> None:
    told = dict(line.split(": ", 1) for line in portkey_headers(site(Case.FORWARD)).splitlines())
    assert told == {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": "http://127.0.0.1:2222/v1",
    }


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ({"name": "@portkey-ai/gateway", "version": "1.2.3"}, "1.2.3"),
        ({"name": "gateway"}, None),
        (None, None),
    ],
)
def test_portkey_is_known_by_its_package_for_others_are_called_gateway_too(
    package: dict[str, str] | None, version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "lib" / "build" / "start-server.js"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\ntrue > started\n")
    program.chmod(0o755)
    if package:
        (tmp_path / "lib" / "package.json").write_text(json.dumps(package))
    link = tmp_path / "bin" / "gateway"  # as npm links to it
    link.parent.mkdir()
    link.symlink_to(program)
    monkeypatch.setenv("PATH", str(link.parent))
    monkeypatch.chdir(tmp_path)
    found = [one for one in contenders(free_port, install=False) if one.name == "portkey"]
    assert [one.version for one in found] == ([version] if version else [])
    assert [one.cases for one in found] == ([(Case.FORWARD,)] if version else [])
    assert [one.command(tmp_path, 8081)[-1] for one in found] == (["--port=8081"] if version else [])
    assert not (tmp_path / "started").exists()


def test_ours_is_always_among_the_contenders() -> None:
    names = [one.name for one in contenders(free_port, install=False)]
    assert names[0] == OURS
    assert len(names) == len(set(names))


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not on PATH")
@pytest.mark.parametrize("case", [Case.FORWARD, Case.TLS, Case.REFUSE, Case.SSE])
def test_nginx_accepts_its_configuration(
    case: Case, tmp_path: Path, certificates: tuple[Path, Path, Path]
) -> None:
    config = tmp_path / "nginx.conf"
    config.write_text(nginx_conf(Site(case, free_port(), free_port(), certificates[2])))
    checked(["nginx", "-t", "-e", "stderr", "-p", str(tmp_path), "-c", str(config)])


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not on PATH")
def test_nginx_accepts_to_be_a_tls_upstream(tmp_path: Path, certificates: tuple[Path, Path, Path]) -> None:
    config = tmp_path / "origin.conf"
    config.write_text(nginx_origin_conf(free_port(), ANSWER, *certificates[:2]))
    checked(["nginx", "-t", "-e", "stderr", "-p", str(tmp_path), "-c", str(config)])


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not on PATH")
@pytest.mark.parametrize("case", [Case.FORWARD, Case.TLS, Case.REFUSE, Case.SSE])
def test_haproxy_accepts_its_configuration(
    case: Case, tmp_path: Path, certificates: tuple[Path, Path, Path]
) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text(haproxy_cfg(Site(case, free_port(), free_port(), certificates[2])))
    checked(["haproxy", "-c", "-f", str(config)])


def checked(command: list[str]) -> None:
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
