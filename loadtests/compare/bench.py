"""What is started for a comparison: upstreams and proxies, each on its core, each seen to do its work."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Final

import trustme

from loadtests.cases import Case, Site
from loadtests.configs import TLS_NAME, nginx_origin_conf
from loadtests.origin import ANSWER
from loadtests.peers import OURS, Contender, nginx_command
from loadtests.raw_client import BODY, PATH, chat_body, wire_request
from loadtests.running import StartError, await_port, free_port, pinned, running, said

LARGE_BODY: Final = chat_body(100_000)
DIRECT: Final = "direct"
"""The row without any proxy."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where, as lists for taskset; None: wherever the system puts it."""

    proxy: str | None
    others: str | None


@dataclass(frozen=True, slots=True)
class Bench:
    """What all measurements of a comparison have in common. `wrk` is its path, or None for our own client.

    `asked` holds at least the options of `add_options`.
    """

    folder: Path
    cores: Cores
    wrk: str | None
    asked: argparse.Namespace

    def body_file(self, case: Case) -> Path:
        """The body of the case's calls, as a file for the generators."""
        file = self.folder / f"{case}.body"
        if not file.exists():
            file.write_bytes(LARGE_BODY if case is Case.LARGE else BODY)
        return file


@dataclass(frozen=True, slots=True)
class Turn:
    """One contender with one case, started: where it listens, which process it is (0: there is none).

    `closes`: it ends the connection with every answer, so that each call pays for a new one. `headers`: lines
    that its calls bring beside the usual.
    """

    name: str
    case: Case
    port: int
    pid: int
    path: str = PATH
    closes: bool = False
    note: str = ""
    headers: tuple[str, ...] = ()


def share_out(cores: Sequence[int], *, has_taskset: bool) -> Cores:
    """The first core for the proxies, the rest for upstream and generator."""
    if len(cores) < 2 or not has_taskset:
        return Cores(None, None)
    return Cores(str(cores[0]), ",".join(map(str, cores[1:])))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The load of a case, which a comparison and a profile are asked for alike."""
    parser.add_argument("--connections", type=int, default=32, help="of the closed loop")
    parser.add_argument("--streams", type=int, default=200, help="of the sse case")
    parser.add_argument("--events", type=float, default=50, help="a second of each of these streams")
    parser.add_argument("--no-wrk", action="store_true", help="use our own load generator")


def set_up(folder: Path, asked: argparse.Namespace) -> Bench:
    """The bench that this machine gives."""
    cores = share_out(sorted(os.sched_getaffinity(0)), has_taskset=shutil.which("taskset") is not None)
    return Bench(folder, cores, None if asked.no_wrk else shutil.which("wrk"), asked)


def start_origin(stack: ExitStack, bench: Bench, case: Case) -> tuple[int, Path | None]:
    """The case's upstream: its port, and the authority that vouches for it when it speaks TLS."""
    port, name = free_port(), f"origin-{case}"
    certificate = key = ca = None
    if case is Case.TLS:
        certificate, key, ca = write_certificate(bench.folder)
    if case in (Case.SSE, Case.MEMORY):
        per_s = bench.asked.events if case is Case.SSE else 0
        command = [sys.executable, "-m", "loadtests.sse_origin", str(port), str(per_s)]
    elif shutil.which("nginx"):
        config = bench.folder / f"{name}.conf"
        config.write_text(nginx_origin_conf(port, ANSWER, certificate, key))
        command = nginx_command(config)
    else:
        command = [sys.executable, "-m", "loadtests.origin", str(port)]
        command += [str(certificate), str(key)] if certificate else []
    process = stack.enter_context(running(name, pinned(command, bench.cores.others), bench.folder))
    await_port(process, port, bench.folder / f"{name}.log")
    return port, ca


def write_certificate(folder: Path) -> tuple[Path, Path, Path]:
    """A private authority and what it vouches for, in PEM: certificate chain, key, and the authority."""
    authority = trustme.CA()
    issued = authority.issue_cert(TLS_NAME, "127.0.0.1")
    certificate, key, ca = folder / "origin.pem", folder / "origin.key", folder / "ca.pem"
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(certificate, append=number > 0)
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    return certificate, key, ca


def start(
    stack: ExitStack, bench: Bench, contender: Contender, case: Case, upstream: tuple[int, Path | None]
) -> Turn:
    """One proxy for one case, seen to do what the case asks before anything is measured."""
    port = free_port()
    name = f"{contender.name}-{case}-{port}"
    config = bench.folder / f"{name}.{contender.suffix}"
    config.write_text(contender.configure(Site(case, port, *upstream)))
    command = pinned(contender.command(config, port), bench.cores.proxy)
    process = stack.enter_context(running(name, command, bench.folder))
    log = bench.folder / f"{name}.log"
    await_port(process, port, log)
    headers = tuple(config.read_text().splitlines()) if contender.is_told_by_calls else ()
    closes = False
    if case not in (Case.SSE, Case.MEMORY):
        body = bench.body_file(case).read_bytes()
        for _ in range(3):  # the bucket holds one call
            status, closes, reason = probe(port, contender.path, body, headers)
        wanted = (429, "bucket_empty") if case is Case.REFUSE else (200, None)
        if status != wanted[0] or (contender.name == OURS and reason != wanted[1]):
            raise StartError(f"{name} answers {status} ({reason}), not {wanted}: {said(log)}")
    return Turn(contender.name, case, port, process.pid, contender.path, closes, contender.note, headers)


def probe(port: int, path: str, body: bytes, headers: Sequence[str] = ()) -> tuple[int, bool, str | None]:
    """One call, sent as the generator sends it: its status, whether its connection is closed then, and the
    reason that ours gives for a refusal."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(wire_request(port, body, path, headers))
        answer = HTTPResponse(connection, method="POST")
        answer.begin()
        answer.read()
        return answer.status, answer.will_close, answer.headers.get("x-backpressure-reason")
