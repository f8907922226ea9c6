"""An upstream that proves who it is, or fails to."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

import trustme

PAST = datetime(2020, 1, 1, tzinfo=UTC)


def server(authority: trustme.CA, *names: str, expired: bool = False) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for these names, or else for localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = authority.issue_cert(*(names or ("localhost",)), not_after=PAST if expired else None)
    certificate.configure_cert(context)
    return context
