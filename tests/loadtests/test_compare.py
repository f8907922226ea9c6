"""How proxies are compared: who is asked what, where it runs, and what the ratios say."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from loadtests.compare import Cores, generator_command, render, share_out, tabulate
from loadtests.origin import ANSWER
from loadtests.peers import (
    Case,
    backpressure_yaml,
    contenders,
    envoy_json,
    haproxy_cfg,
    nginx_conf,
    nginx_origin_conf,
)
from loadtests.raw_client import BODY, PATH
from loadtests.running import free_port, pinned
from proxy.settings import parse, to_policy


def figures(name: str, case: str, per_s: float, cpu_us: float, busy: float = 1.0) -> dict[str, Any]:
    fixed = {"p50_ms": 1.0, "p99_ms": 2.0, "closes": False}
    return {"name": name, "case": case, "per_s": per_s, "cpu_us": cpu_us, "busy": busy, **fixed}


def test_ours_is_compared_with_each_peer_within_its_round_and_case() -> None:
    rounds = [
        figures("backpressure", "forward", 1000.0, 50.0),
        figures("envoy", "forward", 500.0, 100.0),
        figures("envoy", "refuse", 100.0, 10.0),
        figures("backpressure", "refuse", 400.0, 5.0),
        figures("backpressure", "forward", 200.0, 60.0),  # a slow moment of the machine
        figures("envoy", "forward", 100.0, 100.0),
        figures("envoy", "refuse", 100.0, 10.0),
        figures("backpressure", "refuse", 200.0, 5.0),
    ]
    rows = {(row["case"], row["name"]): row for row in tabulate(rounds)}
    assert rows["forward", "envoy"]["ours_per_s_ratio"] == 2.0
    assert rows["forward", "envoy"]["ours_cpu_us_ratio"] == pytest.approx(0.55)
    assert rows["refuse", "envoy"]["ours_per_s_ratio"] == 3.0
    assert rows["forward", "backpressure"]["ours_per_s_ratio"] == 1.0
    assert rows["forward", "envoy"]["per_s"] == 300.0


def test_a_rate_that_the_generator_bounded_is_marked() -> None:
    rounds = [figures("backpressure", "forward", 1000.0, 50.0), figures("nginx", "forward", 9e4, 10.0, 0.5)]
    ours, nginx, note = render(tabulate(rounds)).splitlines()[1:]
    assert "*" not in ours
    assert "90000*" in nginx
    assert note.startswith("* ")


def test_the_proxies_have_the_first_core_for_themselves() -> None:
    assert share_out([0, 1], has_taskset=True) == Cores("0", "1")
    assert share_out([2, 5, 6], has_taskset=True) == Cores("2", "5,6")


@pytest.mark.parametrize(("cores", "has_taskset"), [([0], True), ([0, 1], False)])
def test_nothing_is_pinned_where_that_is_impossible(cores: list[int], has_taskset: bool) -> None:
    assert share_out(cores, has_taskset=has_taskset) == Cores(None, None)
    assert pinned(["true"], None) == ["true"]
    assert pinned(["true"], "1-3") == ["taskset", "--cpu-list", "1-3", "true"]


def test_without_wrk_our_own_generator_sends_the_same_request() -> None:
    with_wrk = generator_command("/usr/bin/wrk", 8080, 32, 3.0)
    assert with_wrk[-1] == BODY.decode()
    assert f"http://127.0.0.1:8080{PATH}" in with_wrk
    assert with_wrk[with_wrk.index("--connections") + 1] == "32"
    assert generator_command(None, 8080, 32, 3.0)[-4:] == ["loadtests.raw_client", "8080", "32", "3.0"]


def test_request_and_answer_have_the_sizes_of_the_published_figures() -> None:
    assert 1000 <= len(BODY) <= 1050
    assert 295 <= len(ANSWER) <= 305
    assert json.loads(ANSWER)["object"] == "chat.completion"
    assert "'" not in ANSWER


@pytest.mark.parametrize("case", Case)
def test_our_configuration_is_valid_and_has_a_bucket_only_to_refuse(case: Case) -> None:
    settings = parse(backpressure_yaml(case, 1111, 2222, 3333), "compare.yaml", {})
    assert (settings.listen.port, settings.admin.listen.port) == (1111, 3333)
    [bucket] = to_policy(settings).routes["chat"].buckets or [None]
    assert (bucket is None) == (case is Case.FORWARD)
    assert bucket is None or (bucket.burst, bucket.rate_per_s) == (1.0, pytest.approx(1 / 3600))


def http_filters(text: str) -> list[str]:
    [listener] = json.loads(text)["static_resources"]["listeners"]
    [chain] = listener["filter_chains"]
    [manager] = chain["filters"]
    assert "access_log" not in manager["typed_config"]
    return [one["name"].rpartition(".")[2] for one in manager["typed_config"]["http_filters"]]


def test_envoy_does_the_least_that_each_case_asks_for() -> None:
    assert http_filters(envoy_json(Case.FORWARD, 1, 2)) == ["router"]
    assert http_filters(envoy_json(Case.REFUSE, 1, 2)) == ["local_ratelimit", "router"]
    buffered = envoy_json(Case.REFUSE, 1, 2, reads_body_first=True)
    assert http_filters(buffered) == ["buffer", "local_ratelimit", "router"]


def test_only_the_refusing_configurations_hold_a_bucket() -> None:
    assert "limit_req" not in nginx_conf(Case.FORWARD, 1, 2)
    assert "limit_req zone=all;" in nginx_conf(Case.REFUSE, 1, 2)
    assert "deny" not in haproxy_cfg(Case.FORWARD, 1, 2)
    assert "deny_status 429" in haproxy_cfg(Case.REFUSE, 1, 2)


def test_nginx_keeps_every_file_in_its_folder() -> None:
    for text in (nginx_conf(Case.REFUSE, 8081, 8082), nginx_origin_conf(8081, ANSWER)):
        assert "pid nginx-8081.pid;" in text
        assert "access_log off;" in text
        assert "/dev/" not in text  # as root it would unlink its pid file there


def test_ours_is_always_among_the_contenders() -> None:
    names = [one.name for one in contenders(free_port, install=False)]
    assert names[0] == "backpressure"
    assert len(names) == len(set(names))


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not on PATH")
@pytest.mark.parametrize("case", Case)
def test_nginx_accepts_its_configuration(case: Case, tmp_path: Path) -> None:
    config = tmp_path / "nginx.conf"
    config.write_text(nginx_conf(case, free_port(), free_port()))
    checked(["nginx", "-t", "-e", "stderr", "-p", str(tmp_path), "-c", str(config)])


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not on PATH")
@pytest.mark.parametrize("case", Case)
def test_haproxy_accepts_its_configuration(case: Case, tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text(haproxy_cfg(case, free_port(), free_port()))
    checked(["haproxy", "-c", "-f", str(config)])


def checked(command: list[str]) -> None:
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
