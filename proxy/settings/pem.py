"""The PEM files of `tls:`: private authorities, and what we prove ourselves with. Read while the YAML is."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema

from proxy.settings.environment import WrongValueError, shown
from proxy.settings.words import Switch, text

PRIVATE_KEY: Final = re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")
PASSPHRASE: Final = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: 4,ENCRYPTED")


def _read(value: object, info: ValidationInfo) -> tuple[Path, bytes]:
    """A file and what it holds; a relative path begins at the folder of the YAML."""
    file = Path((info.context or {}).get("folder", ".")) / text(value)
    try:
        return file, file.read_bytes()
    except (OSError, ValueError):
        raise WrongValueError(
            f"the file {shown(value)} cannot be read; write the path of a PEM file"
        ) from None


def _certificates(value: object, info: ValidationInfo) -> Path:
    """A file with certificates."""
    file, pem = _read(value, info)
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise WrongValueError(f"the file {shown(value)} holds no certificate; write the path of a PEM file")
    try:
        ssl.create_default_context(cadata=pem.decode("ascii", "ignore"))
    except ssl.SSLError:
        raise WrongValueError(
            f"the file {shown(value)} holds a broken certificate; write the path of a PEM file"
        ) from None
    return file


def _key(value: object, info: ValidationInfo) -> Path:
    """A file with the private key of `cert`."""
    file, pem = _read(value, info)
    if PASSPHRASE.search(pem):
        raise WrongValueError(
            f"the key in {shown(value)} is locked with a passphrase, and nobody is there to type it; write "
            "one without (openssl pkey -in locked.pem -out key.pem), readable by this user alone"
        )
    if not PRIVATE_KEY.search(pem):
        raise WrongValueError(f"the file {shown(value)} holds no private key; write the path of a PEM file")
    if (cert := info.data.get("cert")) is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, file)
        except ssl.SSLError:
            raise WrongValueError(
                f"the key in {shown(value)} is broken, or not that of the first certificate in cert; write "
                "the one that cert was issued for"
            ) from None
    return file


_FILE: Final = WithJsonSchema({"type": "string", "minLength": 1})
CertificateFile = Annotated[Path, BeforeValidator(_certificates), _FILE]
KeyFile = Annotated[Path, BeforeValidator(_key), _FILE]

Authority = Annotated[
    CertificateFile | None,
    Field(
        description="PEM file of the private authority to trust in place of the system's.",
        examples=["ca.pem"],
    ),
]
OwnKey = Annotated[
    KeyFile | None,
    Field(
        description="PEM file of its private key, without a passphrase; may be the same file as cert.",
        examples=["client-key.pem"],
    ),
]
Verify = Annotated[Switch, Field(description="false accepts any certificate: for a test bench only.")]
"""What a section that speaks TLS says of it, in the same words for upstreams and the store."""
