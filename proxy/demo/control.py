"""The control routes under `/_demo/`: read the ledger, switch the mode, change the capacity, start anew.

`GET ledger` (`?entries=1` for the rows) · `GET|POST mode` · `GET|POST capacity` · `POST reset`. They answer
in every mode, take no slot and are not in the ledger. What cannot be understood is a 400 that says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from proxy.demo.answers import JSON, encode
from proxy.demo.behaviour import CAPACITY_FIELDS, checked
from proxy.demo.wire import BodyTooLongError, CallerLeftError, Wire

if TYPE_CHECKING:
    from proxy.demo.app import DemoUpstream


_read_object = msgspec.json.Decoder(dict[str, Any]).decode


async def serve(upstream: DemoUpstream, wire: Wire, path: str, query: str) -> None:
    """Answer one control request."""
    try:
        body = await wire.read()
        status, shown = _answer(upstream, wire.scope["method"], path.removeprefix("/_demo/"), query, body)
        await _send(wire, status, shown)
    except BodyTooLongError:
        await _send(wire, 413, {"error": "the body is too long"})
    except CallerLeftError:
        return


def _answer(upstream: DemoUpstream, method: str, name: str, query: str, body: bytes) -> tuple[int, Any]:
    match method, name:
        case "GET", "ledger":
            return 200, _ledger(upstream, with_entries=parse_qs(query).get("entries") == ["1"])
        case "POST", "reset":
            upstream.reset()
            return 200, _ledger(upstream, with_entries=False)
        case "GET" | "POST", "mode" | "capacity":
            if method == "POST":
                change = _change_mode if name == "mode" else _change_capacity
                try:
                    change(upstream, _read_object(body))
                except ValueError as exc:
                    return 400, {"error": str(exc)}
            return 200, upstream.behaviour.mode if name == "mode" else _capacity(upstream)
        case _, "ledger" | "reset" | "mode" | "capacity":
            return 405, {"error": f"{method} is not for /_demo/{name}"}
        case _:
            return 404, {"error": "there are GET ledger, GET|POST mode, GET|POST capacity and POST reset"}


def _ledger(upstream: DemoUpstream, *, with_entries: bool) -> dict[str, Any]:
    shown = upstream.ledger.snapshot()
    shown |= {"serving": upstream.slots.taken, "waiting": upstream.slots.waiting}
    if with_entries:
        shown["entries"] = [entry.as_row() for entry in upstream.ledger.entries]
    return shown


def _capacity(upstream: DemoUpstream) -> dict[str, Any]:
    return {name: getattr(upstream.behaviour, name) for name in CAPACITY_FIELDS}


def _change_mode(upstream: DemoUpstream, asked: dict[str, Any]) -> None:
    upstream.behaviour.mode = checked("mode", asked)


def _change_capacity(upstream: DemoUpstream, asked: dict[str, Any]) -> None:
    """All fields or none."""
    if "mode" in asked:
        raise ValueError("the mode is switched by POST /_demo/mode")
    fields = {name: checked(name, value) for name, value in asked.items()}
    for name, value in fields.items():
        setattr(upstream.behaviour, name, value)


async def _send(wire: Wire, status: int, shown: Any) -> None:
    body = encode(shown)
    await wire.start(status, [(b"content-type", JSON), (b"content-length", b"%d" % len(body))])
    await wire.write(body, last=True)
