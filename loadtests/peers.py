"""The proxies that are compared: which this machine has, and the command that serves each."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from loadtests.cases import Case, Site
from loadtests.configs import backpressure_yaml, haproxy_cfg, litellm_yaml, nginx_conf, portkey_headers
from loadtests.envoy import envoy_binary, envoy_json
from loadtests.raw_client import PATH
from proxy import __version__

ALL: Final = tuple(Case)
OURS: Final = "backpressure"
ENVOYS: Final = ("envoy", "envoy+buffer")
"""Whom the goals are measured against."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A proxy: its configuration for a site, and the command that serves that file (and port).

    `path` is where it answers a chat completion; `note` says what a reader of its row should know. When
    `is_told_by_calls`, its configuration is header lines, and every call brings them.
    """

    name: str
    suffix: str
    configure: Callable[[Site], str]
    command: Callable[[Path, int], list[str]]
    version: str
    cases: tuple[Case, ...] = ALL
    path: str = PATH
    note: str = ""
    is_told_by_calls: bool = False


def contenders(free_port: Callable[[], int], *, install: bool) -> list[Contender]:
    """Ours first, then every peer that this machine has or, with `install`, can have."""

    found = [_ours(free_port, [])]
    if envoy := envoy_binary(install=install):
        found += _envoys(envoy)
    if nginx := shutil.which("nginx"):
        version = _version([nginx, "-v"])
        found.append(Contender("nginx", "conf", nginx_conf, lambda file, _port: nginx_command(file), version))
    if haproxy := shutil.which("haproxy"):
        version = _version([haproxy, "-v"])
        found.append(Contender("haproxy", "cfg", haproxy_cfg, _taking_file([haproxy, "-db", "-f"]), version))
    if litellm := shutil.which("litellm"):
        found.append(_litellm(litellm))
    if (gateway := shutil.which("gateway")) and (version := portkey_version(gateway)):
        found.append(_portkey(gateway, version))
    return found


def build_of_ours(folder: Path, free_port: Callable[[], int]) -> Contender:
    """The build of ours in this folder, whatever is on PYTHONPATH here."""
    return _ours(free_port, ["env", f"PYTHONPATH={folder}"])


def _ours(free_port: Callable[[], int], before: list[str]) -> Contender:
    def configure(site: Site) -> str:
        return backpressure_yaml(site, free_port())

    here = str(Path(sys.executable).with_name("backpressure"))
    return Contender(OURS, "yaml", configure, _taking_file([*before, here, "serve"]), __version__)


def _envoys(envoy: Path) -> list[Contender]:
    """Envoy in both ways to refuse; there is one way to do the rest."""
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--config-path"]
    command = _taking_file([str(envoy), *options])
    version = _version([str(envoy), "--version"])
    buffering = partial(envoy_json, reads_body_first=True)
    plain, buffered = ENVOYS
    return [
        Contender(plain, "json", envoy_json, command, version),
        Contender(buffered, "json", buffering, command, version, (Case.REFUSE,), note="reads the body first"),
    ]


def _litellm(litellm: str) -> Contender:
    """One worker; it forwards only, for its refusals and streams are other work than the others'."""

    def command(file: Path, port: int) -> list[str]:
        listening = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        return [litellm, "--config", str(file), *listening]

    version = _version([litellm, "--version"])
    return Contender(
        "litellm", "yaml", litellm_yaml, command, version, (Case.FORWARD,), path="/v1/chat/completions"
    )


def _portkey(gateway: str, version: str) -> Contender:
    """One process of Node; it forwards only, as LiteLLM. It listens on all addresses: no option says one."""

    def command(_file: Path, port: int) -> list[str]:
        return [gateway, "--headless", f"--port={port}"]  # without its web page

    return Contender(
        "portkey",
        "headers",
        portkey_headers,
        command,
        version,
        (Case.FORWARD,),
        path="/v1/chat/completions",
        is_told_by_calls=True,
    )


def portkey_version(gateway: str) -> str | None:
    """The version of Portkey's gateway; None where that common name is another program's.

    Its package says it, for the program knows no `--version`, and would start.
    """
    package = Path(gateway).resolve().parent.parent / "package.json"  # npm links to its build/start-server.js
    said: dict[str, object] = json.loads(package.read_text()) if package.is_file() else {}
    return str(said.get("version")) if said.get("name") == "@portkey-ai/gateway" else None


def _taking_file(start: list[str]) -> Callable[[Path, int], list[str]]:
    """A command whose last argument is its configuration, which names the port."""
    return lambda file, _port: [*start, str(file)]


def nginx_command(file: Path) -> list[str]:
    """nginx with all its files beside its configuration; for machines where nginx is on PATH."""
    return ["nginx", "-e", "stderr", "-p", str(file.parent), "-c", str(file)]


def _version(command: list[str]) -> str:
    """The first number like 1.2.3 that a program says of its version, on either stream."""
    said = subprocess.run(command, check=False, capture_output=True, text=True)
    found = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
    return found[0] if found else "of unknown version"
