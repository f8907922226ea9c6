"""Files that cannot be read, and values that come from the environment and from beside the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from proxy.settings import Settings, SettingsError, from_upstream, load, parse

SMALLEST = """\
upstreams:
  a: {url: http://127.0.0.1:9000, dialect: openai}
routes:
  - {name: chat, path: /, upstream: a}
"""


def problems(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        load(path, {})
    return str(caught.value).replace(str(path), "FILE")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert problems(tmp_path / "no.yaml") == "FILE: there is no such file; write the path of a YAML file"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert problems(tmp_path) == "FILE: this is a folder; write the path of a YAML file"


def test_a_path_below_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert problems(tmp_path / "file" / "x.yaml") == "FILE: the file cannot be read: Not a directory"


def test_bytes_that_are_not_utf8_are_told(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"listen: \xff\n")
    assert problems(file) == "FILE: the file is not UTF-8; save it as UTF-8"


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    with file.open("wb") as sparse:
        sparse.truncate(10**12)
    assert problems(file) == "FILE: the file is larger than 4 MiB; is it the right one?"


def test_a_control_character_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"a: b\nc: \x00\n")
    assert problems(file) == "FILE:2: a control character that YAML does not allow; remove it"


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + SMALLEST.encode())
    assert load(file, {}).upstreams["a"].concurrency.adaptive is not None


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000])
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        parse(text, "config.yaml", {})


def test_a_private_authority_is_found_beside_the_file(tmp_path: Path) -> None:
    ca = tmp_path / "certs" / "ca.pem"
    ca.parent.mkdir()
    trustme.CA().cert_pem.write_to_path(str(ca))
    file = tmp_path / "a.yaml"
    file.write_text(SMALLEST.replace("http://127.0.0.1:9000", "https://x, tls: {ca: certs/ca.pem}"))
    assert load(file, {}).upstreams["a"].tls.ca == ca


def test_a_file_without_a_certificate_is_no_authority(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    file = tmp_path / "a.yaml"
    file.write_text(SMALLEST.replace("http://127.0.0.1:9000", "https://x, tls: {ca: ca.pem}"))
    assert problems(file) == (
        'FILE:2: upstreams.a.tls.ca: the file "ca.pem" holds no certificate; write the path of a PEM file'
    )


def credential(value: str, env: dict[str, str]) -> str:
    text = SMALLEST.replace("openai}", f"openai, credentials: {{x-key: {value}}}}}")
    settings: Settings = parse(text, "config.yaml", env)
    return settings.upstreams["a"].credentials["x-key"].get_secret_value()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("${A}", "one"),
        ("'${A}-${B}'", "one-${A}"),
        ('"Bearer ${A}"', "Bearer one"),
        ("'$${A}'", "${A}"),
        ("'$A $5 $'", "$A $5 $"),
        ("'$$${A}'", "$${A}"),
        ("'007'", "007"),
        ("${DIGITS}", "007"),
        ("${OFF}", "off"),
    ],
)
def test_a_variable_is_replaced_once_and_stays_text(written: str, meant: str) -> None:
    assert credential(written, {"A": "one", "B": "${A}", "DIGITS": "007", "OFF": "off"}) == meant


def test_the_schemas_own_error_hides_what_it_was_given() -> None:
    with pytest.raises(ValueError, match="not permitted") as caught:
        Settings.model_validate({"tokn": "hunter2", "admin": {"token": ["hunter2"]}})
    assert "hunter2" not in str(caught.value)


def test_a_key_is_never_replaced() -> None:
    with pytest.raises(SettingsError, match=r"config\.yaml:5: \$\{A\}: unknown key"):
        parse(SMALLEST + "${A}: 1\n", "config.yaml", {"A": "drain"})


@pytest.mark.parametrize(
    ("url", "dialect", "told"),
    [
        ("api.openai.com", "openai", "command line: upstreams.default.url: a URL with http:// or https://"),
        ("https://u:hunter2@x", "openai", "command line: upstreams.default.url: the URL holds credentials"),
        ("https://x", "opnai", 'command line: upstreams.default.dialect: "opnai" is not known; did you mean'),
    ],
)
def test_an_upstream_on_the_command_line_is_checked_as_one_in_a_file(
    url: str, dialect: str, told: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        from_upstream(url, dialect)
    assert str(caught.value).startswith(told)
    assert "hunter2" not in str(caught.value)
