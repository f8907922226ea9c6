"""How upstreams are reached: our certificate, outbound proxies, the most connections."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from proxy.settings import Settings, SettingsError, load, parse

URL = "https://127.0.0.1:9000"

NOT_ITS_KEY = (
    'tls.key: the key in "{}" is broken, or not that of the first certificate in cert; '
    "write the one that cert was issued for"
)
LOCKED = (
    'tls.key: the key in "{}" is locked with a passphrase, and nobody is there to type it; write one '
    "without (openssl pkey -in locked.pem -out key.pem), readable by this user alone"
)


def text(stated: str, url: str = URL) -> str:
    return (
        f"upstreams:\n  a: {{url: {url}, dialect: rest, {stated}}}\n"
        "routes: [{name: chat, path: /, upstream: a}]\n"
    )


def problem(stated: str, folder: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        read(stated, folder)
    (only,) = str(caught.value).splitlines()
    return only.partition("upstreams.a.")[2]


def read(stated: str, folder: Path | None = None) -> Settings:
    if folder is None:
        return parse(text(stated), "config.yaml", {"WAY": "http://u:hunter2@p:3128"})
    file = folder / "a.yaml"
    file.write_text(text(stated))
    return load(file, {})


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pems")
    ca = trustme.CA()
    for name in ("own", "other"):
        made = ca.issue_cert(f"{name}@example.test")
        made.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
        made.private_key_pem.write_to_path(str(folder / f"{name}.key"))
    own = (folder / "own.key").read_bytes()
    (folder / "both.pem").write_bytes((folder / "own.pem").read_bytes() + own)
    key = load_pem_private_key(own, None)
    forms = {"locked.key": PrivateFormat.PKCS8, "locked-as-once.key": PrivateFormat.TraditionalOpenSSL}
    for name, form in forms.items():
        locked = key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"pass"))
        (folder / name).write_bytes(locked)
    (folder / "broken.key").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    return folder


@pytest.mark.parametrize("files", ["cert: own.pem, key: own.key", "cert: both.pem, key: both.pem"])
def test_our_own_certificate_is_found_beside_the_file(pems: Path, files: str):
    tls = read(f"tls: {{{files}}}", pems).upstreams["a"].tls
    assert tls.cert
    assert tls.cert.parent == tls.key.parent == pems


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ("cert: own.pem", "tls.cert: needs key beside it; write tls.key, or remove it"),
        ("key: own.key", "tls.key: needs cert beside it; write tls.cert, or remove it"),
        (
            "cert: no.pem, key: own.key",
            'tls.cert: the file "no.pem" cannot be read; write the path of a PEM file',
        ),
        (
            "cert: own.key, key: own.key",
            'tls.cert: the file "own.key" holds no certificate; write the path of a PEM file',
        ),
        (
            "cert: own.pem, key: own.pem",
            'tls.key: the file "own.pem" holds no private key; write the path of a PEM file',
        ),
        ("cert: own.pem, key: other.key", NOT_ITS_KEY.format("other.key")),
        ("cert: own.pem, key: broken.key", NOT_ITS_KEY.format("broken.key")),
        ("cert: own.pem, key: locked.key", LOCKED.format("locked.key")),
        ("cert: own.pem, key: locked-as-once.key", LOCKED.format("locked-as-once.key")),
    ],
)
def test_a_certificate_that_proves_nothing_is_told_with_its_remedy(pems: Path, files: str, told: str):
    assert problem(f"tls: {{{files}}}", pems) == told


@pytest.mark.parametrize(
    "way", ["http://p:3128", "https://p", "socks5://u:pw@p:1080", "socks5h://[::1]:1080", "env"]
)
def test_a_way_out(way: str):
    assert read(f"proxy: '{way}'").upstreams["a"].proxy.get_secret_value() == way


@pytest.mark.parametrize("stated", ["proxy: off", "proxy: 'off'", "http2: true"])
def test_no_way_out_unless_stated(stated: str):
    assert read(stated).upstreams["a"].proxy.get_secret_value() == ""


def test_a_way_out_may_come_from_the_environment_and_is_never_shown():
    settings = read("proxy: '${WAY}'")
    assert settings.upstreams["a"].proxy.get_secret_value() == "http://u:hunter2@p:3128"
    assert "hunter2" not in repr(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    "way",
    ["true", "p:3128", "ftp://u:hunter2@p", "http://", "http://u:hunter2@p/path", "http://u:hunter2@p:0"],
)
def test_what_is_no_way_out_is_refused_without_its_secret(way: str):
    told = problem(f"proxy: '{way}'")
    assert told.startswith("proxy: ")
    assert "write such as http://" in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        (
            "concurrency: 20, connections: {max: 19}",
            "connections.max: 19 is below the upstream's concurrency of 20; write 20 or more, or lower that",
        ),
        (
            "concurrency: {adaptive: {max: 64}}, connections: {max: 63}",
            "connections.max: 63 is below the upstream's concurrency of 64; write 64 or more, or lower that",
        ),
        ("connections: {max: 0}", "connections.max: the number is out of range; write 1 to 1000000"),
        (
            "connections: {max: many}",
            "connections.max: a whole number is needed here; write such as 64",
        ),
    ],
)
def test_connections_below_the_cap_are_refused(stated: str, told: str):
    assert problem(stated) == told


@pytest.mark.parametrize(
    ("stated", "most"), [("connections: {max: 64}", 64), ("connections: {max: off}", None)]
)
def test_the_most_connections(stated: str, most: int | None):
    assert read(stated).upstreams["a"].connections.max == most
