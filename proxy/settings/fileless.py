"""Settings without a YAML file: `backpressure serve --upstream URL`, or `--preset NAME`."""

from __future__ import annotations

from proxy.settings.document import Document
from proxy.settings.load import settle
from proxy.settings.schema import Settings


def from_upstream(
    url: str | None,
    dialect: str | None = None,
    *,
    preset: str | None = None,
    listen: str | None = None,
    admin: str | None = None,
) -> Settings:
    """One upstream `default`, one route `default` at `/`, with every default: cap, bounded queue, breaker,
    retry budget. `listen` and `admin` are HOST:PORT. With a `preset` what is None is the preset's; without
    one the dialect is openai. Raises SettingsError when a value cannot be used."""
    words = {"preset": preset, "url": url, "dialect": dialect or (None if preset else "openai")}
    value: dict[str, object] = {
        "upstreams": {"default": {key: word for key, word in words.items() if word is not None}},
        "routes": [{"name": "default", "path": "/", "upstream": "default"}],
    }
    if listen is not None:
        value["listen"] = listen
    if admin is not None:
        value["admin"] = {"listen": admin}
    return settle(Document("command line", {}, value))
