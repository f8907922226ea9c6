"""Methods: those of HTTP go on as they are, and nothing that is not HTTP goes on as if it were.

nginx passes any token in capitals, Envoy and Node those that their parsers know; ours knows those of Node.
"""

from __future__ import annotations

import pytest

from tests.kit.bench import Bench, answering_ok

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.conformance("framing")]

OF_HTTP = [
    "GET",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "SEARCH",
    "REPORT",
    "PURGE",
    "LINK",
    "UNLINK",
    "M-SEARCH",
    "QUERY",
]
OF_RTSP = [
    "ANNOUNCE",
    "DESCRIBE",
    "FLUSH",
    "GET_PARAMETER",
    "PAUSE",
    "PLAY",
    "RECORD",
    "REDIRECT",
    "SETUP",
    "SET_PARAMETER",
    "TEARDOWN",
]


def request(method: str, version: str) -> bytes:
    return f"{method} /x {version}\r\nhost: proxy\r\nconnection: close\r\n\r\n".encode()


@pytest.mark.parametrize("method", OF_HTTP)
async def test_a_method_of_http_goes_on_as_it_is(bench: Bench, method: str):
    bench.play(answering_ok)
    assert (await bench.ask(request(method, "HTTP/1.1"))).status == 200
    assert [heard.line for heard in bench.heard] == [f"{method} /x HTTP/1.1".encode()]


@pytest.mark.parametrize("version", ["RTSP/1.0", "RTSP/1.1", "HTTP/1.1"])
@pytest.mark.parametrize("method", OF_RTSP)
async def test_a_method_of_rtsp_is_a_400_in_whatever_protocol(bench: Bench, method: str, version: str):
    bench.play(answering_ok)
    assert (await bench.ask(request(method, version))).status == 400
    assert not bench.heard


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "SMUGGLE", "get"])
async def test_a_method_that_is_not_forwarded_is_a_400(bench: Bench, method: str):
    bench.play(answering_ok)
    assert (await bench.ask(request(method, "HTTP/1.1"))).status == 400
    assert not bench.heard
