"""Where the control plane may listen without a token."""

from __future__ import annotations

import pytest

from proxy.control import check_exposure


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST", "::ffff:127.0.0.1"]
)
def test_loopback_needs_no_token(host: str) -> None:
    assert check_exposure(host, None) is None


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "", "*", "10.0.0.1", "::ffff:10.0.0.1", "proxy.internal", "localhost.example", "127.1"],
)
def test_everything_else_needs_one(host: str) -> None:
    problem = check_exposure(host, None)
    assert problem is not None
    assert "token" in problem
    assert check_exposure(host, "") == problem
    assert check_exposure(host, "t0ken") is None
