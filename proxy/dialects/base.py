"""What the pipeline needs of an API's dialect: bytes in → facts, refusal in → bytes. No I/O, no clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

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
    that the body holds only messages which are never refused for want of room. `parts` are the messages of a
    batch that must be decided one by one, each an ask with its bytes in `raw`; () for any other body.

    For models: `allowed` is the most tokens that each of the `answers` may have, None where the body bounds
    none. `tells` is whether its stream is to tell its usage, None where it has no `stream_options` at all.
    """

    __slots__ = (
        "allowed", "answers", "batch", "exempt", "ids", "method", "model", "parts", "raw", "stream", "tells",
        "tool",
    )  # fmt: skip

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
        parts: tuple[Ask, ...] = (),
        raw: bytes = b"",
        allowed: int | None = None,
        answers: int = 1,
        tells: bool | None = None,
    ) -> None:
        self.model = model
        self.tool = tool
        self.stream = stream
        self.ids = ids
        self.exempt = exempt
        self.method = method
        self.batch = batch
        self.parts = parts
        self.raw = raw
        self.allowed = allowed
        self.answers = answers
        self.tells = tells

    def __repr__(self) -> str:
        """Printed by failing tests and by nothing else."""
        said = {name: getattr(self, name) for name in self.__slots__}
        return f"<Ask {' '.join(f'{name}={value!r}' for name, value in said.items() if value)}>"


class Malformed(Exception):
    """The body is not what the dialect speaks. The message is for the caller and repeats nothing of it."""

    code: ClassVar[str] = "malformed_body"


class Dialect(ABC):
    """One API's manner of speaking. Stateless: one instance serves every call.

    What is asked by path alone is asked once a path, not once a call (`routing.Table`). `docs/dialects.md`
    shows how to add one.
    """

    name: str

    is_model_api: bool
    """Do its calls ask a model and change nothing, so that one that failed may be asked of another upstream?
    Only such routes have tokens to count, and models to fall back to."""

    tools_in: str
    """Where a call names its tool: "path", "body", or "" where calls name none."""

    @abstractmethod
    def needs_body(self, method: bytes, path: bytes) -> bool:
        """Whether the body must be read before the call can be decided."""
        ...

    @abstractmethod
    def is_session(self, method: bytes) -> bool:
        """Is a request of this method, whose body is not read, a part of a session: never refused?"""
        ...

    @abstractmethod
    def read(self, body: bytes) -> Ask:
        """What the body asks for. Raises Malformed."""
        ...

    @abstractmethod
    def costs_tokens(self, path: bytes) -> bool:
        """Does a POST of this path cost tokens? No spelling that an upstream may read so escapes."""
        ...

    @abstractmethod
    def answers_no_text(self, path: bytes) -> bool:
        """Does a call of this path, which costs tokens, cost its input only?"""
        ...

    @abstractmethod
    def model_in(self, path: bytes) -> str:
        """The model that the path names; "" where the body does."""
        ...

    @abstractmethod
    def streams(self, path: bytes) -> bool:
        """Does the path say that the answer comes bit by bit? False where the body does."""
        ...

    @abstractmethod
    def refuse(
        self, refusal: Refusal, ask: Ask | None, *, refuse_as: str = "result", stop_status: int = 400
    ) -> Answer:
        """The refusal as this API's clients understand it (DESIGN §7).

        `ask` is None where the body was not read. `refuse_as` (`result`, `error` or `http`) is for MCP alone;
        `stop_status` is the HTTP status of the kind "stop".
        """
        ...

    @abstractmethod
    def error(self, status: int, code: str, message: str) -> Answer:
        """Any other answer of ours, such as 400, 404, 413 or 502, in the dialect's shape."""
        ...

    @abstractmethod
    def cut(self, refusal: Refusal, ask: Ask | None = None) -> bytes | None:
        """The last bytes of an event stream that ends before its time; None: reset the connection.

        Only for an answer of type `text/event-stream`; anything else that is cut must be reset.
        """
        ...

    @abstractmethod
    def model_in_body(self, path: bytes) -> bool:
        """Must the body be here to ask another model the same?"""
        ...

    @abstractmethod
    def with_model(self, path: bytes, body: bytes | None, model: str) -> tuple[bytes, bytes | None]:
        """Path and body of the same request for another model; `body` is None where `model_in_body` is not.

        `path` is what follows the route's prefix. Raises Malformed where there is no model to replace.
        """
        ...
