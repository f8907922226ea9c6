"""How an https upstream proves who it is."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

NAME_MISMATCH: Final = 62
"""X509_V_ERR_HOSTNAME_MISMATCH of OpenSSL, the one verify error whose text holds the host's name."""


class Files:
    """The PEM files of an upstream, as they were when they were read."""

    def __init__(self, *files: Path | None) -> None:
        """Raises OSError for an unreadable file."""
        self._held = {file: file.read_bytes() for file in files if file is not None}

    @property
    def changed(self) -> bool:
        """Does one hold something else by now? One that cannot be read tells nothing new."""
        for file, held in self._held.items():
            try:
                if file.read_bytes() != held:
                    return True
            except OSError:
                continue
        return False


def context(
    ca: Path | None = None, *, cert: Path | None = None, key: Path | None = None, verify: bool = True
) -> ssl.SSLContext:
    """A client context: the system's authorities, or those of the PEM file `ca` alone.

    `cert` and `key` are what we prove ourselves with where the upstream asks for it (mutual TLS); `cert`
    holds the chain, our own certificate first.
    Offers HTTP/1.1 and nothing else (RFC 7301), so that no upstream answers in HTTP/2. Raises OSError or
    ssl.SSLError for an unusable file.
    """
    made = ssl.create_default_context(cafile=ca)
    made.set_alpn_protocols(["http/1.1"])
    if cert is not None:
        made.load_cert_chain(cert, key, password=_nobody)
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def _nobody() -> bytes:
    """Stands in for the question for a passphrase that OpenSSL would put to a terminal."""
    return b""


def detail_of(error: ssl.SSLError) -> str:
    """What went wrong with a handshake, for the log, without the host's name."""
    if isinstance(error, ssl.SSLCertVerificationError):
        mismatch = error.verify_code == NAME_MISMATCH
        return f"certificate not accepted: {'it is for another name' if mismatch else error.verify_message}"
    return f"TLS failed: {(error.reason or 'handshake').replace('_', ' ').lower()}"
