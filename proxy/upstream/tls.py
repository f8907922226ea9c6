"""How an https upstream proves who it is."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

NAME_MISMATCH: Final = 62
"""X509_V_ERR_HOSTNAME_MISMATCH of OpenSSL, the one verify error whose text holds the host's name."""


def context(ca: Path | None, *, verify: bool) -> ssl.SSLContext:
    """A client context: the system's authorities, or those of the PEM file `ca` alone.

    Offers HTTP/1.1 and nothing else (RFC 7301), so that no upstream answers in HTTP/2. Raises OSError or
    ssl.SSLError for an unusable file.
    """
    made = ssl.create_default_context(cafile=ca)
    made.set_alpn_protocols(["http/1.1"])
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def detail_of(error: ssl.SSLError) -> str:
    """What went wrong with a handshake, for the log, without the host's name."""
    if isinstance(error, ssl.SSLCertVerificationError):
        mismatch = error.verify_code == NAME_MISMATCH
        return f"certificate not accepted: {'it is for another name' if mismatch else error.verify_message}"
    return f"TLS failed: {(error.reason or 'handshake').replace('_', ' ').lower()}"
