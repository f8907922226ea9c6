"""From a registry to bytes, metric by metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector


def pieces(registry: CollectorRegistry, accept: str) -> tuple[Iterator[bytes], str]:
    """All metrics of this instant, each encoded when it is asked for; and their content type.

    With 30 lanes encoding takes 20 ms in all, and a stream must not stand still for so long: let the event
    loop turn between two pieces.
    """
    encode, content_type = choose_encoder(accept)
    now = list(registry.collect())
    return _encoded(now, encode, content_type), content_type


class _Alone:
    """One family, as the encoders want it: a collector."""

    __slots__ = ("_family",)

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def _encoded(
    metrics: list[Metric], encode: Callable[[Collector], bytes], content_type: str
) -> Iterator[bytes]:
    end = b"# EOF\n" if content_type.startswith("application/openmetrics-text") else b""
    for family in metrics:
        yield encode(_Alone(family)).removesuffix(end)
    yield end
