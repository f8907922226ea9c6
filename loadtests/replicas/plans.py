"""Configurations and loads of the scenarios. Pure: all follows from the arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loadtests.replicas.site import Replica, Stream

NO_CAP = 100_000
"""A cap that is never reached: the upstream's is stated, for a learnt one is each replica's own."""

Yaml = Callable[[int, int, str, str], str]


def yaml(
    *,
    rate_per_s: float | None = None,
    burst: float | None = None,
    cap: int = NO_CAP,
    queue: str = "{size: 40, max_age: 1s}",
    upstream: str = "    breaker: off",
    memory: bool = False,
    dialect: str = "rest",
) -> Yaml:
    """A maker of configurations: one route, one upstream, a bucket of the upstream if it has a rate."""
    bucket = ""
    if rate_per_s is not None:
        room = "" if burst is None else f", burst: {burst:.0f}"
        bucket = f"    buckets: [{{rate: {rate_per_s:.12g} requests/second{room}, per: upstream}}]\n"

    def made(data_port: int, control_port: int, url: str, store: str) -> str:
        return f"""\
listen: 127.0.0.1:{data_port}
admin: {{listen: 127.0.0.1:{control_port}}}
drain: 1s
store: {"memory" if memory else store}
upstreams:
  model:
    url: {url}
    dialect: {dialect}
    concurrency: {cap}
{upstream}
routes:
  - name: calls
    path: /
    upstream: model
    queue: {queue}
{bucket}"""

    return made


def skewed(count: int, skew: float) -> list[float]:
    """Parts of a load that sum up to 1.0: the first replica gets `skew` times as much as the last."""
    weights = [skew ** (1 - number / max(1, count - 1)) for number in range(count)]
    return [weight / sum(weights) for weight in weights]


def load(replicas: Sequence[Replica], per_s: float, skew: float, from_s: float, to_s: float) -> list[Stream]:
    """So many calls a second over some replicas, for a time."""
    parts = skewed(len(replicas), skew)
    return [
        (replica.number, replica.port, per_s * part, from_s, to_s)
        for replica, part in zip(replicas, parts, strict=True)
    ]
