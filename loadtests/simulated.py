"""The simulated upstream (`proxy.demo`) and the proxy in front of it, each in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.running import await_port, fetch, free_port, running


@dataclass(frozen=True, slots=True)
class Running:
    """Where the upstream and the proxy (`port`) listen, and their process ids by name."""

    upstream: str
    port: int
    control: str
    pids: Mapping[str, int]

    @property
    def proxy(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ledger(self) -> dict[str, Any]:
        """The upstream's counters now."""
        counters: dict[str, Any] = json.loads(fetch(f"{self.upstream}/_demo/ledger"))
        return counters

    def metrics(self) -> str:
        """The proxy's /metrics now."""
        return fetch(f"{self.control}/metrics").decode()


@contextmanager
def upstream_and_proxy(
    folder: Path, upstream_options: Sequence[str], proxy_yaml: Callable[[int, int, str], str]
) -> Iterator[Running]:
    """Both running and listening, on free ports; ended on the way out. StartError if one does not come up.

    `proxy_yaml` makes the configuration of the data port, the control port and the upstream's URL.
    """
    upstream_port, data_port, control_port = free_port(), free_port(), free_port()
    url = f"http://127.0.0.1:{upstream_port}"
    upstream = [sys.executable, "-m", "proxy.demo", "--port", str(upstream_port), *upstream_options]
    config = folder / "proxy.yaml"
    config.write_text(proxy_yaml(data_port, control_port, url))
    proxy = [str(Path(sys.executable).with_name("backpressure")), "serve", str(config)]
    with running("upstream", upstream, folder) as started:
        await_port(started, upstream_port, folder / "upstream.log")
        with running("proxy", proxy, folder) as behind:
            await_port(behind, data_port, folder / "proxy.log")
            await_port(behind, control_port, folder / "proxy.log")
            pids = {"upstream": started.pid, "proxy": behind.pid}
            yield Running(url, data_port, f"http://127.0.0.1:{control_port}", pids)
