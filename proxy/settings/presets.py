"""Settings without a YAML file: `backpressure serve --upstream URL`."""

from __future__ import annotations

from proxy.settings.document import Document
from proxy.settings.load import settle
from proxy.settings.schema import Settings


def from_upstream(url: str, dialect: str = "openai") -> Settings:
    """One upstream `default`, one route `default` at `/`, with every default: cap, bounded queue, breaker,
    retry budget. Raises SettingsError when the URL or the dialect cannot be used."""
    value: dict[str, object] = {
        "upstreams": {"default": {"url": url, "dialect": dialect}},
        "routes": [{"name": "default", "path": "/", "upstream": "default"}],
    }
    return settle(Document("command line", {}, value))
