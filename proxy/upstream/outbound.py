"""Which outbound proxy a call to an upstream goes through, if any.

The environment is asked only where the configuration says `proxy: env`. A server that calls out by whatever
`HTTPS_PROXY` a shell, an image or a unit file happened to set would take production traffic, with the
provider's key, another way than its configuration says; nginx, Envoy and HAProxy do not look there either.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from proxy.upstream.address import Address

ENVIRONMENT: Final = "env"
SCHEMES: Final = frozenset({"http", "https", "socks5", "socks5h"})


def way_to(address: Address, proxy: str | None) -> str | None:
    """The URL of the proxy to use for an address, or None for the direct way.

    `proxy` is a URL, None, or `env`: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, as curl and the
    SDKs read them. Raises ValueError, which repeats nothing of a URL: it may hold a password.
    """
    if proxy != ENVIRONMENT:
        return proxy and checked(proxy)
    found = getproxies_environment()
    url = found.get("https" if address.tls else "http") or found.get("all")
    if not url or proxy_bypass(f"{address.host}:{address.port}"):
        return None
    return checked(url if "://" in url else f"http://{url}")


def checked(url: str) -> str:
    """The URL, if a proxy can be at it. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise ValueError("a proxy's URL is such as http://proxy:3128 or socks5://proxy:1080")
    if parts.port == 0 or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("a proxy's URL holds a scheme, a host, a port and perhaps a user, and nothing else")
    return url
