"""How callers reach us: an HTTP/1.1 connection for uvicorn, passed to it as its documented `http=` option.

uvicorn keeps the sockets, the accepting and the way out; its own protocol class is for any ASGI app, and
spends on that about as much as all the rest of a call costs. This one serves the data plane alone. It adds
what ASGI has no words for: bounds on what a caller may send and how slowly, a call back the moment the caller
disconnects (so that nobody spends a task on waiting for it), and a reset (so that a cut answer never looks
like a whole one).

`connection` serves requests in their order, `reading` makes them of bytes, `watch` is how long it waits for
whom, `crowd` what happens when too many come, `reception` where uvicorn calls, and `bounds` the numbers.
"""

from proxy.listener.bounds import Bounds
from proxy.listener.connection import CallerConnection
from proxy.listener.reception import Reception

__all__ = ["Bounds", "CallerConnection", "Reception"]
