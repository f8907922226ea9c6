"""A URL taken apart, and targets put together."""

from __future__ import annotations

import pytest

from proxy.upstream.address import Address, parse


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://a.test", Address("a.test", 80, False, b"a.test", b"")),
        ("https://a.test/", Address("a.test", 443, True, b"a.test", b"")),
        ("https://a.test:8443/base/v1/", Address("a.test", 8443, True, b"a.test:8443", b"/base/v1")),
        ("http://127.0.0.1:80", Address("127.0.0.1", 80, False, b"127.0.0.1", b"")),
        ("http://[::1]:8080/x", Address("::1", 8080, False, b"[::1]:8080", b"/x")),
        ("https://bücher.test", Address("xn--bcher-kva.test", 443, True, b"xn--bcher-kva.test", b"")),
    ],
)
def test_a_url_in_parts(url: str, address: Address):
    assert parse(url) == address


@pytest.mark.parametrize(
    "url",
    ["a.test", "ftp://a.test", "http://", "http://u:p@a.test", "http://a.test?x", "http://a.test#x",
     "http://a.test:99999", "http://a.test/ü", "http://a.test/a b"],
)  # fmt: skip
def test_a_url_that_is_no_upstream(url: str):
    with pytest.raises(ValueError, match=r"."):
        parse(url)


@pytest.mark.parametrize(
    ("base", "rest", "query", "target"),
    [
        ("", b"", None, b"/"),
        ("", b"/v1/chat", None, b"/v1/chat"),
        ("", b"/v1/chat", b"", b"/v1/chat?"),
        ("/base/", b"", None, b"/base"),
        ("/base", b"v1", b"a=b", b"/base/v1?a=b"),
        ("/base", b"//x/../%2F;p", b"q=%20+&&", b"/base//x/../%2F;p?q=%20+&&"),
    ],
)
def test_targets_are_joined_byte_for_byte(base: str, rest: bytes, query: bytes | None, target: bytes):
    assert parse("http://a.test" + base).target(rest, query) == target
