"""`make compare`, shortened and without its peers: every case is started, measured and judged for real."""

from __future__ import annotations

import json
from contextlib import ExitStack
from math import isfinite
from pathlib import Path

import pytest

from loadtests.cases import GOALS, Case
from loadtests.compare.__main__ import main, started
from loadtests.compare.bench import Turn
from loadtests.compare.table import COLUMNS
from loadtests.peers import ENVOYS, OURS, Contender
from loadtests.running import StartError

SHORT = ["--only", "none", "--no-install", "--no-wrk", "--rounds", "1", "--warm-up", "0", "--seconds", "0.3"]
FEW = ["--connections", "4", "--streams", "5", "--events", "50", "--idle-streams", "10"]


@pytest.mark.slow
@pytest.mark.parametrize("case", Case)
def test_every_case_gives_its_figures(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*SHORT, *FEW, "--cases", case.value, "--results", str(tmp_path)]
    assert main(arguments) == 0, capsys.readouterr().err
    [written] = tmp_path.glob("compare-*.json")
    result = json.loads(written.read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert set(rows) == ({OURS, "direct"} if case is Case.SSE else {OURS})
    assert {figure for figure in COLUMNS[case] if not isfinite(rows[OURS][figure])} == set()
    # CPU is told in ticks of 10 ms, more than so few events cost; what is added may be less than nothing.
    assert rows[OURS]["per_s" if case in (Case.SSE, Case.LATENCY) else GOALS[case].figure] > 0
    assert f"{case.value} " in capsys.readouterr().out


def test_a_peer_that_does_not_start_is_left_out_but_envoy_must(capsys: pytest.CaptureFixture[str]) -> None:
    def begin(_stack: ExitStack, contender: Contender) -> Turn:
        if contender.version == "broken":
            raise StartError(f"{contender.name} does not listen")
        return Turn(contender.name, Case.FORWARD, 1, 1)

    def one(name: str, version: str) -> Contender:
        return Contender(name, "", lambda _site: "", lambda _file, _port: [], version)

    with ExitStack() as stack:
        found = list(started(stack, begin, [one(OURS, "1"), one("litellm", "broken"), one("nginx", "1")]))
        assert [turn.name for turn in found] == [OURS, "nginx"]
        assert "left out: litellm does not listen" in capsys.readouterr().out
        with pytest.raises(StartError):
            list(started(stack, begin, [one(ENVOYS[0], "broken")]))
