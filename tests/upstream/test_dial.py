"""Opening connections: several addresses, TLS, and what goes wrong with them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from proxy.core.verdict import Reason
from proxy.upstream import dial as dialling
from tests.kit.asking import ask, get, post, upstream_at
from tests.kit.ports import dead_port, stuck_port
from tests.kit.scripted import OK, Peer, Scripted, answering, saying
from tests.kit.tls import server
from tests.kit.waiting import until


async def test_a_private_authority_is_trusted_when_it_is_configured(authority: trustme.CA, ca: Path):
    context = server(authority, "localhost")
    async with (
        Scripted(answering(OK), context=context) as scripted,
        upstream_at(scripted.url, ca=ca) as upstream,
    ):
        for reused in (False, True):
            result, caller = await ask(upstream, post(b"x" * 200_000))
            assert (result.complete, result.reused, caller.body) == (True, reused, b"ok")
    assert len(scripted.requests[0].body) == 200_000


async def test_http_1_1_is_all_that_is_offered(authority: trustme.CA, ca: Path):
    context = server(authority, "localhost")
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with (
        Scripted(answering(OK), context=context) as scripted,
        upstream_at(scripted.url, ca=ca) as upstream,
    ):
        await ask(upstream, get())
        chosen = scripted.peers[0].writer.get_extra_info("ssl_object").selected_alpn_protocol()
    assert chosen == "http/1.1"


@pytest.mark.parametrize(
    ("names", "expired", "detail"),
    [
        (["localhost"], True, "certificate not accepted: certificate has expired"),
        (["other.test"], False, "certificate not accepted: it is for another name"),
    ],
)
async def test_a_certificate_that_proves_nothing_is_not_accepted(
    authority: trustme.CA, ca: Path, names: list[str], expired: bool, detail: str
):
    context = server(authority, *names, expired=expired)
    async with Scripted(answering(OK), context=context) as scripted:
        async with upstream_at(scripted.url, ca=ca) as upstream:
            result, _ = await ask(upstream, get())
            assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
        async with upstream_at(scripted.url, verify=False) as trusting:
            trusted, _ = await ask(trusting, get())
    assert (result.reason, result.detail) == (Reason.UPSTREAM_FAILED, detail)
    assert trusted.complete


async def test_an_unknown_authority_is_not_trusted(authority: trustme.CA):
    context = server(authority, "localhost")
    async with Scripted(answering(OK), context=context) as scripted, upstream_at(scripted.url) as upstream:
        result, _ = await ask(upstream, get())
    assert result.detail.startswith("certificate not accepted: ")
    assert "localhost" not in result.detail


async def test_an_upstream_that_does_not_speak_tls_has_failed():
    async def script(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Plain\r\ncontent-length: 0\r\n\r\n")

    async with (
        Scripted(script) as scripted,
        upstream_at(scripted.url.replace("http:", "https:")) as upstream,
    ):
        result, _ = await ask(upstream, get())
    assert (result.reason, result.detail) == (Reason.UPSTREAM_FAILED, "TLS failed: wrong version number")


async def test_a_handshake_that_hangs_is_given_up_in_time():
    async def script(peer: Peer) -> None:
        await peer.left()

    url = "https://localhost"
    async with (
        Scripted(script) as scripted,
        upstream_at(f"{url}:{scripted.port}", connect_s=0.02) as upstream,
    ):
        result, _ = await ask(upstream, get())
        assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
    assert result.reason is Reason.UPSTREAM_TIMEOUT


async def test_a_tls_answer_that_ends_well_is_complete(authority: trustme.CA, ca: Path):
    context = server(authority, "localhost")
    raw = b"HTTP/1.1 200 OK\r\n\r\nall of it"
    async with (
        Scripted(saying(raw), context=context) as scripted,
        upstream_at(scripted.url, ca=ca) as upstream,
    ):
        result, caller = await ask(upstream, get())
    assert (result.complete, caller.body) == (True, b"all of it")


# ── mutual TLS ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("http2", [False, True])
async def test_an_upstream_that_asks_for_a_certificate_gets_ours(
    authority: trustme.CA, ca: Path, tmp_path: Path, http2: bool
):
    own = authority.issue_cert("proxy@example.test")
    cert, key = tmp_path / "own.pem", tmp_path / "own.key"
    own.cert_chain_pems[0].write_to_path(str(cert))
    own.private_key_pem.write_to_path(str(key))
    context = server(authority, "localhost")
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    context.set_alpn_protocols(["http/1.1"])
    async with Scripted(answering(OK), context=context) as scripted:
        async with upstream_at(scripted.url, ca=ca, cert=cert, key=key, http2=http2) as upstream:
            known, _ = await ask(upstream, get())
        shown = scripted.peers[0].writer.get_extra_info("ssl_object").getpeercert()
        async with upstream_at(scripted.url, ca=ca, http2=http2) as upstream:
            unknown, _ = await ask(upstream, get())
            await until(lambda: not upstream.pool.connections)
    assert known.complete
    assert ("email", "proxy@example.test") in shown["subjectAltName"]
    assert (unknown.reason, unknown.complete) == (Reason.UPSTREAM_FAILED, False)
    assert len(scripted.requests) == 1


async def test_it_is_seen_when_a_pem_file_was_renewed(authority: trustme.CA, ca: Path):
    async with upstream_at("https://localhost", ca=ca) as upstream:
        assert upstream.is_current
        trustme.CA().cert_pem.write_to_path(str(ca))
        assert not upstream.is_current
        ca.unlink()
        assert upstream.is_current  # what cannot be read tells nothing new


# ── several addresses ───────────────────────────────────────────────────────────────────────────────


def at(*ports: int) -> list[dialling.Sockaddr]:
    return [(socket.AF_INET, ("127.0.0.1", port)) for port in ports]


async def connect(*ports: int, shunned: dialling.Shunned | None = None) -> int:
    """Race these ports of 127.0.0.1; the port that won."""
    clock = asyncio.get_running_loop().time
    sock = await dialling._first_of(at(*ports), shunned or dialling.Shunned(clock))
    with sock:
        return int(sock.getpeername()[1])


async def test_a_dead_address_is_skipped():
    async with Scripted(answering(OK)) as scripted:
        assert await connect(dead_port(), dead_port(), scripted.port) == scripted.port


async def test_an_address_that_does_not_answer_is_overtaken():
    with stuck_port() as stuck:
        async with Scripted(answering(OK)) as scripted:
            assert await connect(stuck, scripted.port) == scripted.port


async def test_when_all_addresses_are_dead_that_is_an_error():
    with pytest.raises(ConnectionRefusedError):
        await connect(dead_port(), dead_port())


async def test_a_race_that_is_cancelled_leaves_nothing_open():
    with stuck_port() as stuck, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await connect(stuck, stuck)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_address_that_failed_is_tried_last_for_ten_seconds():
    now = 0.0
    shunned = dialling.Shunned(lambda: now)
    dead = dead_port()
    with stuck_port() as stuck:
        async with Scripted(answering(OK)) as scripted:
            assert await connect(dead, stuck, scripted.port, shunned=shunned) == scripted.port
            assert shunned.last(at(dead, stuck, scripted.port)) == at(scripted.port, dead, stuck)
            now = 9.0
            assert await connect(scripted.port, dead, stuck, shunned=shunned) == scripted.port
    assert shunned.last(at(dead, scripted.port)) == at(scripted.port, dead)
    now = 10.0
    assert shunned.last(at(dead, scripted.port)) == at(dead, scripted.port)


async def test_a_dead_address_of_a_name_costs_its_wait_once(monkeypatch: pytest.MonkeyPatch):
    dead = dead_port()
    tried: list[int] = []
    connect_to = dialling._connect

    async def watched(candidate: dialling.Sockaddr) -> socket.socket:
        tried.append(candidate[1][1])
        return await connect_to(candidate)

    async with Scripted(answering(OK)) as scripted:

        async def both(_: object) -> list[dialling.Sockaddr]:
            return at(dead, scripted.port)

        monkeypatch.setattr(dialling, "_resolve", both)
        monkeypatch.setattr(dialling, "_connect", watched)
        async with upstream_at(scripted.url, idle_for_s=0) as upstream:
            for _ in range(3):
                result, _ = await ask(upstream, get())
                assert result.complete
    assert tried == [dead, scripted.port, scripted.port, scripted.port]


async def test_a_name_that_moves_takes_effect_when_the_connection_is_old(monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    async with Scripted(answering(OK)) as old, Scripted(answering(OK)) as new:
        moved = False

        async def resolve(_: object) -> list[dialling.Sockaddr]:
            return at(new.port if moved else old.port)

        monkeypatch.setattr(dialling, "_resolve", resolve)
        async with upstream_at(old.url, idle_for_s=60, max_age_s=100, clock=lambda: now) as upstream:
            await ask(upstream, get())
            moved = True
            for now in (59.0, 99.0, 101.0):  # noqa: B007 - the pool reads it
                await ask(upstream, get())
            await until(lambda: upstream.pool.idle == 1 and len(upstream.pool.connections) == 1)
    assert (len(old.requests), len(new.requests)) == (3, 1)


async def test_a_name_that_is_none_fails_at_once_and_one_that_hangs_in_time(
    monkeypatch: pytest.MonkeyPatch,
):
    async with upstream_at("http://nowhere.invalid") as upstream:
        result, _ = await ask(upstream, get())
        assert (result.reason, result.detail) == (Reason.UPSTREAM_FAILED, "name not resolved")

    async def hang(_: object) -> list[dialling.Sockaddr]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(dialling, "_resolve", hang)
    async with upstream_at("http://slow.invalid", connect_s=0.02) as upstream:
        result, _ = await ask(upstream, get())
        assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
    assert (result.reason, result.detail) == (Reason.UPSTREAM_TIMEOUT, "no connection within 0.02s")
