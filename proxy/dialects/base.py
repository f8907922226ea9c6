"""What the pipeline needs of an API's dialect: bytes in → facts, refusal in → bytes. No I/O, no clock."""

from __future__ import annotations

from typing import Protocol

from proxy.core.verdict import Refusal

Headers = list[tuple[bytes, bytes]]


class Answer:
    """One whole HTTP answer of ours. `headers` hold no content-length: the wire knows the body."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        """Printed by failing tests and by nothing else."""
        return f"<Answer {self.status} {self.body[:80]!r}>"


class Ask:
    """What a body asks for, as far as a decision or an answer needs it; "" and () where it does not say.

    For MCP: `method` is the JSON-RPC method of every request in the body ("" when a batch mixes them),
    `ids` are those that wait for an answer, `batch` says that the answer must be an array, and `exempt`
    that the body holds only messages which are never refused for want of room.
    """

    __slots__ = ("batch", "exempt", "ids", "method", "model", "stream", "tool")

    def __init__(
        self,
        *,
        model: str = "",
        tool: str = "",
        stream: bool = False,
        ids: tuple[int | str, ...] = (),
        exempt: bool = False,
        method: str = "",
        batch: bool = False,
    ) -> None:
        self.model = model
        self.tool = tool
        self.stream = stream
        self.ids = ids
        self.exempt = exempt
        self.method = method
        self.batch = batch

    def __repr__(self) -> str:
        """Printed by failing tests and by nothing else."""
        said = {name: getattr(self, name) for name in self.__slots__}
        return f"<Ask {' '.join(f'{name}={value!r}' for name, value in said.items() if value)}>"


class Malformed(Exception):
    """The body is not what the dialect speaks. The message is for the caller and repeats nothing of it."""


class Dialect(Protocol):
    """One API's manner of speaking. Stateless: one instance serves every call."""

    name: str

    def needs_body(self, method: bytes, path: bytes) -> bool:
        """Whether the body must be read before the call can be decided."""
        ...

    def read(self, body: bytes) -> Ask:
        """What the body asks for. Raises Malformed."""
        ...

    def refuse(
        self, refusal: Refusal, ask: Ask | None, *, refuse_as: str = "result", stop_status: int = 400
    ) -> Answer:
        """The refusal as this API's clients understand it (DESIGN §7).

        `ask` is None where the body was not read. `refuse_as` (`result`, `error` or `http`) is for MCP alone;
        `stop_status` is the HTTP status of the kind "stop".
        """
        ...

    def error(self, status: int, code: str, message: str) -> Answer:
        """Any other answer of ours, such as 400, 404, 413 or 502, in the dialect's shape."""
        ...

    def cut(self, refusal: Refusal, ask: Ask | None = None) -> bytes | None:
        """The last bytes of an event stream that ends before its time; None: reset the connection.

        Only for an answer of type `text/event-stream`; anything else that is cut must be reset.
        """
        ...

    def with_model(self, body: bytes, model: str) -> bytes:
        """The same request for another model. Raises Malformed where there is no model to replace."""
        ...
