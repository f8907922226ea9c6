"""Settings without a YAML file: `backpressure serve --upstream URL`."""

from __future__ import annotations

from proxy.settings.document import Document
from proxy.settings.load import settle
from proxy.settings.schema import Settings


def from_upstream(
    url: str, dialect: str = "openai", *, listen: str | None = None, admin: str | None = None
) -> Settings:
    """One upstream `default`, one route `default` at `/`, with every default: cap, bounded queue, breaker,
    retry budget. `listen` and `admin` are HOST:PORT. Raises SettingsError when a value cannot be used."""
    value: dict[str, object] = {
        "upstreams": {"default": {"url": url, "dialect": dialect}},
        "routes": [{"name": "default", "path": "/", "upstream": "default"}],
    }
    if listen is not None:
        value["listen"] = listen
    if admin is not None:
        value["admin"] = {"listen": admin}
    return settle(Document("command line", {}, value))
