"""Where an upstream is: its URL, taken apart once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """An upstream's URL in parts.

    `host` is a name or an IP literal without brackets; `authority` is the value of the Host header, with
    the port unless it is the scheme's own; `base_path` ends without a slash, so it may be empty.
    """

    host: str
    port: int
    tls: bool
    authority: bytes
    base_path: bytes

    def target(self, rest: bytes, query: bytes | None) -> bytes:
        """The request target for the part of a path that follows the route's prefix, byte for byte.

        A `query` of b"" is one with its question mark, None is none.
        """
        if rest and not rest.startswith(b"/"):
            rest = b"/" + rest
        path = self.base_path + rest or b"/"
        return path if query is None else path + b"?" + query


def parse(url: str) -> Address:
    """The address of an http or https URL. Raises ValueError in words for the configuration's author."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS:
        raise ValueError("an upstream's URL begins with http:// or https://")
    if not parts.hostname:
        raise ValueError("an upstream's URL names a host")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("an upstream's URL holds no credentials, query or fragment")
    own_port = PORTS[parts.scheme]
    port = parts.port or own_port
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port == own_port else f"{shown}:{port}"
    base_path = parts.path.rstrip("/")
    if not base_path.isascii() or any(char <= " " or char == "\x7f" for char in base_path):
        raise ValueError("the path of an upstream's URL is percent-encoded")
    return Address(host, port, parts.scheme == "https", authority.encode(), base_path.encode())
