"""A contender that every call must tell its upstream: started, probed and measured as Portkey's is."""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.cases import Case
from loadtests.compare.bench import Bench, Cores, start, start_origin
from loadtests.compare.calls import measure
from loadtests.peers import Contender, contenders, portkey_version
from loadtests.running import StartError, free_port

STAND_IN = """\
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        named = (self.headers["x-upstream"], self.headers["x-upstream-kind"])
        is_told = self.path == "/v1/chat/completions" and named == (sys.argv[2], "openai")
        self.send_response(200 if is_told else 400)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answering).serve_forever()
"""
GATEWAY = shutil.which("gateway")
WRK = pytest.param(shutil.which("wrk"), marks=pytest.mark.skipif(not shutil.which("wrk"), reason="no wrk"))


def bench(folder: Path, wrk: str | None) -> Bench:
    return Bench(folder, Cores(None, None), wrk, Namespace(connections=2))


def stand_in(upstream_port: int) -> Contender:
    """It answers well only who names the upstream in both headers."""
    return Contender(
        "stand-in",
        "headers",
        lambda site: f"x-upstream-kind: openai\nx-upstream: {site.upstream_port}\n",
        lambda _file, port: [sys.executable, "-c", STAND_IN, str(port), str(upstream_port)],
        "1",
        path="/v1/chat/completions",
        is_told_by_calls=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("wrk", [None, WRK], ids=["own", "wrk"])
def test_the_probe_and_the_generator_bring_its_headers_with_every_call(
    tmp_path: Path, wrk: str | None
) -> None:
    with ExitStack() as stack:
        turn = start(stack, bench(tmp_path, wrk), stand_in(4242), Case.FORWARD, (4242, None))
        assert turn.headers == ("x-upstream-kind: openai", "x-upstream: 4242")
        assert measure(bench(tmp_path, wrk), turn, 0.2)["per_s"] > 0


@pytest.mark.slow
def test_who_is_told_by_a_file_gets_no_such_headers(tmp_path: Path) -> None:
    by_file = replace(stand_in(4242), is_told_by_calls=False)
    with ExitStack() as stack, pytest.raises(StartError, match="answers 400"):
        start(stack, bench(tmp_path, None), by_file, Case.FORWARD, (4242, None))


@pytest.mark.slow
@pytest.mark.skipif(not (GATEWAY and portkey_version(GATEWAY)), reason="Portkey is not on PATH")
def test_portkey_forwards_to_the_upstream_that_it_is_told(tmp_path: Path) -> None:
    own = bench(tmp_path, None)
    [portkey] = [one for one in contenders(free_port, install=False) if one.name == "portkey"]
    with ExitStack() as stack:
        upstream = start_origin(stack, own, Case.FORWARD)
        turn = start(stack, own, portkey, Case.FORWARD, upstream)
        assert measure(own, turn, 0.2)["per_s"] > 0
