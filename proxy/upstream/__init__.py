"""How we call out: the lean HTTP/1.1 client that carries every call. Read `relay.py` first.

contract.py    what the relay is given and gives back
relay.py       one exchange, top to bottom
target.py      an upstream: address, credentials, spans, connections
pool.py        the idle connections        dial.py, tls.py, address.py    opening one
connection.py  one connection: flow control, timer        answer.py    bytes → answer, no socket in it
headers.py     the head we send        upload.py    a body that is pulled        retry_after.py    theirs
ear.py         what an upstream says of its allowances (allowance.py, spans.py), or in a text (limit_texts.py)
judge.py       what an exchange says about its upstream        retries.py    when it is to be repeated
merging.py     messages of ours among those of an answer
httpx_bridge.py, httpx_line.py    HTTP/2, and what is behind an outbound proxy (outbound.py)
"""

from proxy.upstream.contract import (
    SAFE_METHODS,
    CallerGone,
    Downstream,
    Headers,
    Request,
    Result,
    UnsendableRequest,
)
from proxy.upstream.headers import CREDENTIALS
from proxy.upstream.limit_texts import heed, looked_at
from proxy.upstream.merging import Merged
from proxy.upstream.relay import relay
from proxy.upstream.retries import Held, Retries
from proxy.upstream.target import Upstream

__all__ = [
    "CREDENTIALS",
    "SAFE_METHODS",
    "CallerGone",
    "Downstream",
    "Headers",
    "Held",
    "Merged",
    "Request",
    "Result",
    "Retries",
    "UnsendableRequest",
    "Upstream",
    "heed",
    "looked_at",
    "relay",
]
