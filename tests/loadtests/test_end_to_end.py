"""The load tests themselves, short: locust's agents, `make load`, `soak`, `compare`, with real processes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from loadtests.agents import CallRecord
from loadtests.load import locust_command, read_records
from loadtests.soak_plan import FAULTS

ROOT = Path(__file__).parents[2]
needs_locust = pytest.mark.skipif(find_spec("locust") is None, reason="locust comes with the extra `load`")
TOLD_MS = 150.0


class Scripted(ThreadingHTTPServer):
    """Refuses every first attempt with a time to return; then answers odd calls and refuses even ones."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Attempt)
        self.seen: list[tuple[float, dict[str, str], bytes]] = []


class Attempt(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20.0
    server: Scripted

    def do_POST(self) -> None:
        arrived_at = monotonic()
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((arrived_at, headers, body))
        call = int(json.loads(body)["messages"][0]["content"].split()[2])
        is_retry = self.headers["x-stainless-retry-count"] != "0"
        self.send_response(200 if is_retry and call % 2 else 429)
        self.send_header("retry-after-ms", str(TOLD_MS))
        self.send_header("retry-after", "1")
        self.send_header("x-backpressure-reason", "bucket_empty")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: the tests' output is for failures."""


@contextmanager
def scripted() -> Iterator[Scripted]:
    with Scripted() as server:
        turning = threading.Thread(target=server.serve_forever, args=(0.01,))
        turning.start()
        try:
            yield server
        finally:
            server.shutdown()
            turning.join()


@needs_locust
@pytest.mark.slow
def test_locusts_agents_keep_the_told_time_and_give_up_after_two_retries(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    with scripted() as server:
        host = f"http://127.0.0.1:{server.server_port}"
        finished([*locust_command(host, 20.0, 1, 0.5, records), "Critical"])
    calls = read_records(records)
    assert len(calls) > 3
    for number, call in enumerate(calls, start=1):
        attempts = [seen for seen in server.seen if f" {number} of critical-1 ".encode() in seen[2]]
        assert_behaved_like_an_sdk(number, call, attempts)


def assert_behaved_like_an_sdk(
    number: int, call: CallRecord, attempts: list[tuple[float, dict[str, str], bytes]]
) -> None:
    expected = [429, 200] if number % 2 else [429, 429, 429]
    assert call.statuses == expected
    assert call.end == ("good" if number % 2 else "refused")
    assert call.reasons == ["bucket_empty"] * len(expected)
    assert call.told_nothing == 0
    assert call.scheduled_at <= call.started_at < call.ended_at
    counts = [headers["x-stainless-retry-count"] for _, headers, _ in attempts]
    assert counts == [str(attempt) for attempt in range(len(expected))]
    assert {headers["x-priority"] for _, headers, _ in attempts} == {"critical"}
    assert len({body for _, _, body in attempts}) == 1
    waits_s = [after[0] - before[0] for before, after in pairwise(attempts)]
    assert min(waits_s) >= TOLD_MS / 1000


@needs_locust
@pytest.mark.slow
def test_a_short_load_run_accounts_for_every_call_and_never_exceeds_the_cap(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.load", "--results", str(tmp_path), "--factor", "0.5"]
    command += ["--slots", "4", "--latency", "0.1", "--seconds", "1", "--warm-up", "0.2", "--users", "10"]
    finished(command, codes=(0, 1))  # 1: void, on a machine too busy for the generator to be on time
    summary = written(tmp_path, "load")
    offered = [one["offered"] for one in summary["classes"].values()]
    assert sum(offered) > 0
    assert [sum(one["ends"].values()) for one in summary["classes"].values()] == offered
    assert 1 <= summary["upstream_peak_in_flight"] <= summary["cap"] == 4
    assert summary["refusals_without_retry_after"] == 0
    assert set(summary["cores_used"]) == {"upstream", "proxy", "locust"}


@pytest.mark.slow
def test_a_short_comparison_measures_ours_forwarding_and_refusing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.compare", "--results", str(tmp_path)]
    command += ["--no-install", "--no-wrk", "--rounds", "1", "--seconds", "0.3", "--warm-up", "0.1"]
    said = finished([*command, "--connections", "4", "--cases", "forward,refuse"])
    result = written(tmp_path, "compare")
    ours = {row["case"]: row for row in result["rows"] if row["name"] == "backpressure"}
    assert set(ours) == {"forward", "refuse"}
    assert all(row["per_s"] > 0 and row["cpu_us"] > 0 for row in ours.values())
    assert result["used"]["generator"] == "loadtests/raw_client.py"
    assert "generator: loadtests/raw_client.py" in said


@pytest.mark.slow
def test_a_short_soak_with_every_fault_once_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.soak", "--results", str(tmp_path), "--seconds", "5"]
    command += ["--slots", "8", "--latency", "0.03", "--events", "5", "--gap", "0.01", "--every", "0.25"]
    finished(command)
    found = written(tmp_path, "soak")
    assert found["failed"] == []
    switched = [{name: what for name, what in each.items() if name != "at_s"} for each in found["faults"]]
    assert Counter(map(json.dumps, switched[::2])) == Counter(map(json.dumps, FAULTS))
    assert switched[1::2] == [{"name": "ok"}] * len(FAULTS)
    assert all(ends["good"] + ends["left"] > 0 for ends in found["endings"].values())


def finished(command: list[str], codes: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode in codes, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def written(folder: Path, name: str) -> dict[str, Any]:
    [file] = folder.glob(f"{name}-*.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found
