"""Who may see the control plane: everybody on loopback, elsewhere whoever has the token."""

from __future__ import annotations

from collections.abc import Collection
from hmac import compare_digest
from ipaddress import IPv6Address, ip_address

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


def check_exposure(host: str, token: str | None) -> str | None:
    """Why the control plane must not listen on `host`; None when it may.

    Names and addresses are not resolved: only `localhost` and literal loopback addresses count as loopback.
    """
    if token or _is_loopback(host):
        return None
    return (
        f"{host or 'every address'} can be reached from other machines: set a token, or listen on 127.0.0.1"
    )


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    # Python 3.11 does not see through ::ffff:127.0.0.1.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


class RequireToken:
    """ASGI middleware: `Authorization: Bearer TOKEN` or 401, for every path but the `open_paths`.

    It stands before the routing, so that a stranger cannot tell which paths exist.
    """

    def __init__(self, app: ASGIApp, token: str, open_paths: Collection[str]) -> None:
        self._app = app
        self._token = token.encode()
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 401."""
        if scope["type"] != "http" or scope["path"] in self._open_paths or self._admits(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        response = JSONResponse(
            {"error": "this needs the admin token: Authorization: Bearer TOKEN"},
            status_code=401,
            headers={"www-authenticate": 'Bearer realm="backpressure"'},
        )
        await response(scope, receive, send)

    def _admits(self, headers: Headers) -> bool:
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        # Starlette decodes headers as latin-1; encoding them so restores the bytes that were sent.
        given = credential.strip().encode("latin-1")
        return scheme.lower() == "bearer" and compare_digest(given, self._token)
