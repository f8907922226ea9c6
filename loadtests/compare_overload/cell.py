"""One cell of the sweep: one proxy at one load, everything started anew, so that nobody has learnt before."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from subprocess import Popen
from typing import Any, Final

from loadtests.cases import Case, Site
from loadtests.compare.bench import DIRECT, Cores, probe
from loadtests.compare_overload.contenders import Entrant
from loadtests.compare_overload.schedule import KINDS, Plan
from loadtests.raw_client import BODY, PATH
from loadtests.running import StartError, await_port, cpu_s, fetch, free_port, pinned, running, said

LONGEST_S: Final = max(kind.patience_s for kind in KINDS) + 30
"""What a run may take beyond its arrivals: the last caller's patience, and a start."""


def measure(entrant: Entrant | None, plan: Plan, cores: Cores, folder: Path) -> dict[str, Any]:
    """What the callers and the upstream wrote down, and the share of its core that the proxy used.

    Without an entrant the callers call the upstream itself. StartError when something did not start.
    """
    with ExitStack() as stack:
        at = free_port()
        name = f"{entrant.name if entrant else DIRECT}-{plan.factor:g}-{at}".replace(" ", "-")
        own = folder / name
        own.mkdir()
        serving = [sys.executable, "-m", "loadtests.congested_origin", str(at), str(plan.slots)]
        start(stack, "origin", [*serving, str(plan.service_s)], cores.others, own, at)
        port, proxy = at, None
        if entrant is not None:
            port = free_port()
            config = own / f"proxy.{entrant.contender.suffix}"
            config.write_text(entrant.contender.configure(Site(Case.FORWARD, port, at)))
            command = entrant.contender.command(config, port)
            proxy = start(stack, "proxy", command, cores.proxy, own, port)
            status, _, reason = probe(port, PATH, BODY)
            if status != 200:
                raise StartError(f"{name} answers {status} ({reason}): {said(own / 'proxy.log')}")
        pid = proxy.pid if proxy else 0
        used_s, waited_s = spent_s(pid)
        told = call(stack, port, plan, cores, own)
        busy, waited = (
            after - before for before, after in zip((used_s, waited_s), spent_s(pid), strict=True)
        )
        ledger = json.loads(fetch(f"http://127.0.0.1:{at}/ledger"))
    spent = {"proxy_busy": busy / plan.arriving_s, "proxy_waited": waited / plan.arriving_s}
    return {"callers": told, "ledger": ledger, **spent}


def spent_s(pid: int) -> tuple[float, float]:
    """CPU seconds that a process has used, and those that its threads waited for a core while others had it.

    Nothing for process 0, which is none; no waiting where the kernel does not count it (schedstat).
    """
    if not pid:
        return 0.0, 0.0
    waited_ns = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has ended meanwhile, or there is no such count
            waited_ns += int((thread / "schedstat").read_text().split()[1])
    return cpu_s(pid), waited_ns / 1e9


def start(
    stack: ExitStack, what: str, command: Sequence[str], cores: str | None, folder: Path, port: int
) -> Popen[bytes]:
    process = stack.enter_context(running(what, pinned(command, cores), folder))
    await_port(process, port, folder / f"{what}.log")
    return process


def call(stack: ExitStack, port: int, plan: Plan, cores: Cores, folder: Path) -> dict[str, Any]:
    """Let the plan's callers call the port. StartError when they fail."""
    asked, records = folder / "plan.json", folder / "records.json"
    asked.write_text(json.dumps(asdict(plan)))
    module = "loadtests.compare_overload.callers"
    command = [sys.executable, "-m", module, str(port), PATH, str(asked), str(records)]
    process = stack.enter_context(running("callers", pinned(command, cores.others), folder))
    if process.wait(plan.arriving_s + LONGEST_S):
        raise StartError(f"the callers failed: {said(folder / 'callers.log')}")
    told: dict[str, Any] = json.loads(records.read_text())
    return told
