"""The Dockerfile, without an engine: what it says, and its own lines run on this machine."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.dockerfile import Instruction, read

ROOT = Path(__file__).parents[2]
BUILD, RUNTIME = read((ROOT / "Dockerfile").read_text())


def only(stage: list[Instruction], keyword: str) -> Instruction:
    [found] = [instruction for instruction in stage if instruction.keyword == keyword]
    return found


def environment(stage: list[Instruction]) -> dict[str, str]:
    pairs = [word for instruction in stage if instruction.keyword == "ENV" for word in instruction.words]
    return dict(pair.split("=", 1) for pair in pairs)


def test_the_container_is_not_root_and_says_so_by_number() -> None:
    assert only(RUNTIME, "USER").rest == "10001:10001"
    created = [run.rest for run in RUNTIME if run.keyword == "RUN"]
    assert ["--gid 10001" in line and "--uid 10001" in line for line in created] == [True]
    after_user = RUNTIME[RUNTIME.index(only(RUNTIME, "USER")) :]
    assert not [step for step in after_user if step.keyword in {"RUN", "COPY"}]


def test_it_serves_the_configuration_of_its_volume_and_stops_on_sigterm() -> None:
    [volume] = only(RUNTIME, "VOLUME").words
    command = only(RUNTIME, "ENTRYPOINT").words + only(RUNTIME, "CMD").words
    assert command == ["backpressure", "serve", "/etc/backpressure/backpressure.yaml"]
    assert Path(command[-1]).parent == Path(volume)
    assert only(RUNTIME, "STOPSIGNAL").rest == "SIGTERM"


def test_the_command_it_starts_is_the_one_the_build_stage_installed() -> None:
    app = environment(BUILD)["APP"]
    copied = only(RUNTIME, "COPY")
    assert copied.flags == ("--from=build",)
    assert copied.words == [app, app]  # a virtual environment holds its own path
    assert environment(RUNTIME)["PATH"].split(":")[0] == f"{app}/bin"


def test_no_instruction_names_a_secret() -> None:
    secret = re.compile(r"token|api_?key|password|secret", re.IGNORECASE)
    assert [step for step in BUILD + RUNTIME if secret.search(step.rest)] == []


def test_all_that_is_copied_exists_and_passes_the_dockerignore() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    sources = [source for step in BUILD if step.keyword == "COPY" for source in step.words[:-1]]
    assert rules[1] == "*"
    assert sorted(Path(source).name for source in sources) == sorted(allowed)
    assert [source for source in sources if not (ROOT / source).exists()] == []


@contextmanager
def answering(status: int) -> Iterator[str]:
    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing: the tests' output is for failures."""

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        turning = threading.Thread(target=server.serve_forever, args=(0.01,))
        turning.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/healthz"
        finally:
            server.shutdown()
            turning.join()


def healthcheck(url: str, extra: Mapping[str, str] | None = None) -> int:
    check = only(RUNTIME, "HEALTHCHECK")
    instruction, _, command = check.rest.partition(" ")
    assert instruction == "CMD"
    words = Instruction("CMD", (), command).words
    assert words[0] == "python"
    env = {**os.environ, **(extra or {}), "BACKPRESSURE_HEALTH_URL": url}
    return subprocess.run([sys.executable, *words[1:]], env=env, capture_output=True, check=False).returncode


def test_the_healthcheck_passes_when_the_proxy_is_alive_and_fails_when_it_is_not() -> None:
    with answering(200) as url:
        assert healthcheck(url) == 0
        assert healthcheck(url, {"http_proxy": "http://127.0.0.1:9"}) == 0  # never asked through a proxy
    with answering(503) as url:
        assert healthcheck(url) == 1
    with socket.socket() as bound:  # bound but not listening: connections are refused
        bound.bind(("127.0.0.1", 0))
        assert healthcheck(f"http://127.0.0.1:{bound.getsockname()[1]}/healthz") == 1


def test_the_healthcheck_asks_where_the_default_configuration_listens() -> None:
    assert environment(RUNTIME)["BACKPRESSURE_HEALTH_URL"] == "http://127.0.0.1:8081/healthz"
    assert only(RUNTIME, "EXPOSE").words == ["8080", "8081"]


@pytest.mark.slow
@pytest.mark.timeout(600)  # fetches the runtime dependencies
def test_the_lines_of_the_build_stage_run_on_a_plain_machine(tmp_path: Path) -> None:
    context = copy_context(tmp_path / "src")
    wheels, app = tmp_path / "wheels", tmp_path / "app"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "WHEELS": str(wheels), "APP": str(app), "PATH": path}
    for step in BUILD:
        if step.keyword == "RUN":
            run(step.rest, shell=True, cwd=context, env=env)
    [wheel] = wheels.glob("backpressure_proxy-*.whl")
    assert missing_from(wheel, context) == []
    assert not (app / "bin" / "pip").exists()
    assert "serve" in run([app / "bin" / "backpressure", "--help"], cwd="/")


def run(command: str | list[str | Path], **options: Any) -> str:
    """What it printed; a command that fails fails the test with all it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy_context(target: Path) -> Path:
    """What the COPY lines of the build stage bring, in a folder of its own."""
    target.mkdir()
    for step in BUILD:
        for source in step.words[:-1] if step.keyword == "COPY" else []:
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
                shutil.copytree(ROOT / source, target / source, ignore=ignored)
            else:
                shutil.copy(ROOT / source, target)
    return target


def missing_from(wheel: Path, source: Path) -> list[str]:
    """What the product needs at run time and the wheel lacks: any file of proxy/, or the entry point."""
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        [points] = [name for name in held if fnmatch(name, "*.dist-info/entry_points.txt")]
        entry = archive.read(points).decode()
    needed = {str(file.relative_to(source)) for file in (source / "proxy").rglob("*") if file.is_file()}
    lacking = sorted((needed | {"proxy/py.typed"}) - held)
    return lacking if "backpressure = proxy.cli:main" in entry else [*lacking, "entry point backpressure"]
