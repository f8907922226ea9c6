"""TLS over a plain TCP connection: every byte in its place, and an end that nobody can forge."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from proxy.upstream import tls
from proxy.upstream.tls_transport import SLICE_BYTES, TlsTransport
from tests.kit.tls import server
from tests.kit.tls_by_hand import ByHand

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
LONG = bytes(range(256)) * 1024


# ── without a network: each byte is given by hand ───────────────────────────────────────────────────


class Tcp:
    """A TCP transport that keeps what is written."""

    def __init__(self) -> None:
        self.sent = b""
        self.writes = 0
        self.calls: list[str] = []
        self.unsent = 0

    def write(self, data: bytes) -> None:
        assert not self.is_closing()
        self.sent += data
        self.writes += 1

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def taken(self) -> bytes:
        """What was written since the last look."""
        sent, self.sent = self.sent, b""
        return sent

    def is_closing(self) -> bool:
        return "close" in self.calls or "abort" in self.calls

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def pause_reading(self) -> None:
        self.calls.append("pause_reading")

    def resume_reading(self) -> None:
        self.calls.append("resume_reading")

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.calls.append(f"{high} {low}")

    def get_write_buffer_size(self) -> int:
        return self.unsent


class Above(asyncio.Protocol):
    """A protocol that keeps what it is told. `on_data` is called with each piece."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.body = b""
        self.on_data: Callable[[bytes], None] = lambda _: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        assert data
        self.body += data
        self.told.append(len(data))
        self.on_data(data)

    def eof_received(self) -> None:
        self.told.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(exc)

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


class Pair:
    """Both ends, the handshake done unless `shake` is false."""

    def __init__(
        self, authority: trustme.CA, ca: Path, version: ssl.TLSVersion = VERSIONS[1], *, shake: bool = True
    ) -> None:
        self.far = ByHand(server(authority))
        self.context = tls.context(ca)
        self.context.maximum_version = version
        self.tcp, self.above = Tcp(), Above()
        if shake:
            self.begin()
            self.shake()
            self.near.data_received(self.far.tickets)
            assert self.near.ready.result() is None
            assert self.above.told == ["made"]

    def begin(self) -> None:
        self.near = TlsTransport(self.context, "localhost", self.above)
        self.near.connection_made(self.tcp)  # type: ignore[arg-type]  # what is called of it, it has

    def shake(self) -> None:
        while True:
            said = self.far.shake(self.tcp.taken())
            if said:
                self.near.data_received(said)
            if self.far.shaken:
                return

    def end(self, error: Exception | None = None) -> None:
        """What the TCP transport does in the end."""
        self.near.connection_lost(error)


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def pair(request: pytest.FixtureRequest, authority: trustme.CA, ca: Path) -> Callable[..., Pair]:
    def make(**more: bool) -> Pair:
        return Pair(authority, ca, request.param, **more)

    return make


async def test_every_record_may_come_byte_by_byte(pair):
    both = pair(shake=False)
    both.begin()
    while not both.far.shaken:
        for byte in both.far.shake(both.tcp.taken()):
            both.near.data_received(bytes((byte,)))
    both.near.write(b"a request")
    assert both.far.hear(both.tcp.taken()) == b"a request"
    for byte in both.far.tickets + both.far.say(b"one") + both.far.say(b"two") + both.far.farewell():
        both.near.data_received(bytes((byte,)))
    assert both.above.told == ["made", 3, 3, "eof"]
    assert both.above.body == b"onetwo"


async def test_what_comes_with_the_end_of_the_handshake_is_handed_over(authority: trustme.CA, ca: Path):
    both = Pair(authority, ca, ssl.TLSVersion.TLSv1_2, shake=False)
    both.begin()
    both.near.data_received(both.far.shake(both.tcp.taken()))
    both.near.data_received(both.far.shake(both.tcp.taken()) + both.far.say(b"early"))
    assert both.above.told == ["made", 5]


async def test_what_has_arrived_is_handed_over_in_one_piece(pair):
    both = pair()
    said = both.far.say(b"one") + both.far.say(b"two") + both.far.say(LONG)
    both.near.data_received(said[:-1])
    both.near.data_received(said[-1:])
    assert both.above.told == ["made", 6 + len(LONG) - 16 * 1024, 16 * 1024]
    assert both.above.body == b"onetwo" + LONG


async def test_a_session_ticket_is_nobodys_data(authority: trustme.CA, ca: Path):
    both = Pair(authority, ca, shake=False)
    both.begin()
    both.shake()
    assert len(both.far.tickets) > 100
    both.near.data_received(both.far.tickets[:-1])
    assert both.above.told == ["made"]
    both.near.data_received(both.far.tickets[-1:] + both.far.say(b"one"))
    assert both.above.told == ["made", 3]


@pytest.mark.parametrize("size", [1, 16 * 1024, SLICE_BYTES, SLICE_BYTES + 1, 5 * SLICE_BYTES])
async def test_what_is_written_arrives_in_one_write(pair, size: int):
    both = pair()
    body, writes = (LONG * 2)[:size], both.tcp.writes
    both.near.write(body)
    assert both.tcp.writes == writes + 1
    assert both.far.hear(both.tcp.taken()) == body
    both.near.writelines((b"head", body))
    assert both.tcp.writes == writes + 2
    assert both.far.hear(both.tcp.taken()) == b"head" + body


async def test_a_long_body_leaves_no_large_buffer(authority: trustme.CA, ca: Path):
    """What OpenSSL writes into never shrinks."""
    sizes: list[int] = []

    class Watched(ssl.SSLObject):
        def write(self, data: bytes) -> int:
            sizes.append(len(data))
            return super().write(data)

    both = Pair(authority, ca, shake=False)
    both.context.sslobject_class = Watched
    both.begin()
    both.shake()
    both.near.write(LONG)
    assert both.far.hear(both.tcp.taken()) == LONG
    assert sizes == [SLICE_BYTES] * (len(LONG) // SLICE_BYTES)


async def test_what_openssl_says_of_itself_while_it_reads_is_sent(authority: trustme.CA, ca: Path):
    class Replying(ssl.SSLObject):
        """As when they ask for new keys, or negotiate anew."""

        def read(self, size: int = 1024, buffer: bytearray | None = None) -> bytes:
            self.write(b"a reply")
            return super().read(size)

    both = Pair(authority, ca, shake=False)
    both.context.sslobject_class = Replying
    both.begin()
    both.shake()
    both.near.data_received(both.far.tickets)
    assert both.far.hear(both.tcp.taken()) == b"a reply"


async def test_a_close_is_said_and_not_waited_for(pair):
    both = pair()
    both.near.write(b"last")
    both.near.close()
    both.near.close()
    assert both.tcp.calls == ["close"]
    assert both.far.hear(both.tcp.taken()) == b"last"
    both.far.ssl.unwrap()  # would want to read if ours had not come
    both.end()
    assert both.above.told == ["made", None]


async def test_their_close_is_the_end_and_is_answered(pair):
    both = pair()
    both.near.data_received(both.far.say(b"all") + both.far.farewell() + b"what comes after it is nobody's")
    assert both.above.told == ["made", 3, "eof"]
    assert both.tcp.calls == ["close"]
    assert both.tcp.sent, "our own close_notify"
    both.end()
    assert both.above.told[-1] is None


async def test_the_end_of_tcp_alone_is_a_fault(pair):
    both = pair()
    both.near.data_received(both.far.say(b"all?"))
    both.near.eof_received()
    assert both.tcp.calls == ["abort"]
    both.end()
    assert both.above.told[:2] == ["made", 4]
    assert isinstance(both.above.told[2], ConnectionResetError)


async def test_what_came_before_an_altered_record_is_handed_over_and_the_fault_told(pair):
    both = pair()
    good, bad = both.far.say(b"good"), both.far.say(b"bad")
    both.near.data_received(good + bad[:-1] + bytes((bad[-1] ^ 1,)))
    assert both.tcp.calls == ["abort"]
    assert both.tcp.sent, "an alert says why"
    both.end()
    assert both.above.told[:2] == ["made", 4]
    assert isinstance(both.above.told[2], ssl.SSLError)


@pytest.mark.parametrize("way", ["close", "abort"])
async def test_whoever_closes_amid_what_arrives_is_told_no_fault_besides(pair, way: str):
    both = pair()
    both.above.on_data = lambda _: getattr(both.near, way)()
    bad = both.far.say(b"good") + both.far.say(b"bad")
    both.near.data_received(bad[:-1] + bytes((bad[-1] ^ 1,)))
    assert both.tcp.calls == [way]
    both.end()
    assert both.above.told == ["made", 4, None]


async def test_an_upstream_that_does_not_prove_who_it_is_hears_why(authority: trustme.CA, ca: Path):
    other = trustme.CA()
    other.cert_pem.write_to_path(str(ca))
    both = Pair(authority, ca, shake=False)
    both.begin()
    both.near.data_received(both.far.shake(both.tcp.taken()))
    assert isinstance(both.near.ready.result(), ssl.SSLCertVerificationError)
    assert both.tcp.calls == ["abort"]
    with pytest.raises(ssl.SSLError, match="unknown ca"):
        both.far.shake(both.tcp.taken())
    both.end()
    assert both.above.told == []


async def test_how_much_may_wait_to_be_sent_is_for_tcp_to_keep(authority: trustme.CA, ca: Path):
    both = Pair(authority, ca)
    both.near.set_write_buffer_limits(4096)
    assert both.tcp.calls == ["4096 None"]
    both.tcp.unsent = 5000
    both.near.pause_writing()
    assert both.near.get_write_buffer_size() == 5000
    both.near.resume_writing()
    assert both.above.told == ["made", "pause", "resume"]


@pytest.mark.parametrize("way", ["close", "abort"])
async def test_whoever_closes_amid_what_arrives_is_told_no_end_besides(pair, way: str):
    both = pair()
    both.above.on_data = lambda _: getattr(both.near, way)()
    both.near.data_received(both.far.say(b"enough") + both.far.farewell())
    assert both.above.told == ["made", 6]
    assert both.tcp.calls == [way]
    assert both.near.is_closing()


async def test_pausing_stops_the_reading_of_tcp_with_nothing_kept_back(pair):
    both = pair()
    both.above.on_data = lambda _: both.near.pause_reading()
    both.near.data_received(both.far.say(LONG))
    assert both.above.told == ["made", len(LONG)]
    both.near.resume_reading()
    assert both.tcp.calls == ["pause_reading", "resume_reading"]


class Reluctant(ssl.SSLObject):
    """Takes nothing while it negotiates anew, but says so; `begun` is what it wants to see again."""

    negotiates = False
    begun: bytes | None = None

    def write(self, data: bytes) -> int:
        if Reluctant.begun is not None:
            assert bytes(data) == Reluctant.begun, "OpenSSL: bad write retry"
        if Reluctant.negotiates:
            if Reluctant.begun is None:
                super().write(b"hello")
            Reluctant.begun = bytes(data)
            raise ssl.SSLWantReadError
        Reluctant.begun = None
        return super().write(data)


@pytest.mark.parametrize("first", ["write", "writelines"])
@pytest.mark.parametrize("tcp_pauses", [False, True])
async def test_what_cannot_be_sent_while_they_negotiate_anew_waits_and_keeps_its_order(
    authority: trustme.CA, ca: Path, monkeypatch: pytest.MonkeyPatch, first: str, tcp_pauses: bool
):
    both = Pair(authority, ca, shake=False)
    both.context.sslobject_class = Reluctant
    both.begin()
    both.shake()
    monkeypatch.setattr(Reluctant, "negotiates", True)
    if first == "write":
        both.near.write(b"one")
    else:
        both.near.writelines((b"one", LONG[:100_000]))
    assert both.above.told == ["made", "pause"]
    assert both.far.hear(both.tcp.taken()) == b"hello"
    both.near.write(b"two")
    both.near.writelines((b"three", b"four"))
    assert both.tcp.taken() == b""
    whole = b"one" + (b"" if first == "write" else LONG[:100_000]) + b"twothreefour"
    assert both.near.get_write_buffer_size() == len(whole)
    both.near.data_received(both.far.tickets + both.far.say(b"x"))  # they are not done yet
    assert both.above.told == ["made", "pause", 1]
    if tcp_pauses:
        both.near.pause_writing()
    monkeypatch.setattr(Reluctant, "negotiates", False)
    both.near.data_received(both.far.say(b"y"))
    assert both.far.hear(both.tcp.taken()) == whole
    assert both.near.get_write_buffer_size() == 0
    if tcp_pauses:
        assert both.above.told == ["made", "pause", 1, 1]
        both.near.resume_writing()
    assert sorted(map(str, both.above.told[3:])) == ["1", "resume"]


@pytest.mark.parametrize("how", ["eof", "lost", "reset"])
async def test_a_connection_that_ends_in_its_handshake_was_never_made(pair, how: str):
    both = pair(shake=False)
    both.begin()
    if how == "eof":
        both.near.eof_received()
        assert both.tcp.calls == ["abort"]
    both.end(ConnectionResetError() if how == "reset" else None)
    assert isinstance(both.near.ready.result(), ConnectionResetError)
    assert both.above.told == []


async def test_a_handshake_that_nobody_waits_for_makes_no_connection(pair):
    both = pair(shake=False)
    both.begin()
    both.near.ready.cancel()
    said = both.far.shake(both.tcp.taken())
    both.near.data_received(said)
    both.near.abort()
    both.end()
    assert both.above.told == []
    assert both.tcp.sent == b""


async def test_nothing_is_left_for_the_collector(pair):
    def left() -> int:
        return sum(isinstance(each, TlsTransport) for each in gc.get_objects())

    both = pair()
    both.above.near = both.near
    gc.collect()
    before = left()
    gc.disable()
    try:
        both.near.data_received(both.far.say(b"all") + both.far.farewell())
        both.end()
        both = None
        assert left() == before - 1
    finally:
        gc.enable()
