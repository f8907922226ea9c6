"""The protocol of a driver, and all that the Python ones share. Standard library only.

A driver is one real client in its own environment, a process that is asked and answers in lines of JSON:

  <- {"client": "openai 3.52.0"}                                  first, once it is ready
  -> {"id": 1, "base": "http://127.0.0.1:1/openai", "ask": "plain", "patient": true, "headers": {}}
  <- {"id": 1, "answer": "..."}                                   what the model said
  <- {"id": 1, "error": "RateLimitError", "status": 429, "text": "..."}   what the client raised instead

`ask` is plain, streamed or tool: then the model calls the tool `weather`, the client runs it, and the answer
is what the model says next, with `tool` the arguments that the tool was called with. `pieces` tells in how
many parts a streamed answer came. A client that is not `patient` is told not to return by itself. `headers`
are sent with every request. Asks run side by side; the driver ends when its input does.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

KEY = "sk-test"
MODEL = "demo"
PROMPT = "What is the weather in Paris?"
ENOUGH_TOKENS = 64
LONGEST_S = 60.0
"""No call lasts longer, whatever the client's own patience."""

TOOL = "weather"
TOOL_DESCRIPTION = "The weather in a city."
TOOL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = "Sunny."


@dataclass(frozen=True)
class Ask:
    """What is asked of the client."""

    id: int
    base: str
    ask: str
    patient: bool
    headers: dict[str, str]


def said(answer: str | None, **more: Any) -> dict[str, Any]:
    """What a client gave."""
    return {"answer": answer or "", **more}


def drive(package: str, ask: Callable[[Ask], dict[str, Any]], name: str = "") -> None:
    """Answer asks until the input ends. `package` is the client's distribution; `ask` may raise anything."""
    serve(f"{name or package} {version(package)}", ask)


def serve(client: str, ask: Callable[[Ask], dict[str, Any]]) -> None:
    """The same for a client whose name and version are known."""
    lock = threading.Lock()

    def tell(line: dict[str, Any]) -> None:
        with lock:
            sys.__stdout__.write(json.dumps(line) + "\n")
            sys.__stdout__.flush()

    def answer(asked: Ask) -> None:
        try:
            tell({"id": asked.id, **ask(asked)})
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the client's answer
            tell({"id": asked.id, **raised(error)})

    sys.stdout = sys.stderr  # what a client prints is no line of ours
    tell({"client": client})
    threads = []
    for line in sys.stdin:
        thread = threading.Thread(target=answer, args=(Ask(**json.loads(line)),), daemon=True)
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()


def raised(error: BaseException) -> dict[str, Any]:
    """An exception as its user sees it; of a group, the first in it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    status = next(
        (
            found
            for name in ("status_code", "code", "status")
            if isinstance(found := getattr(error, name, None), int)
        ),
        None,
    )
    return {"error": type(error).__name__, "status": status, "text": str(error)}
