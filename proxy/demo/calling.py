"""When the model calls a tool instead of answering, and what of a request tells it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from proxy.demo.answers import encode

_ANSWERS: Final = (b'"tool_result"', b'"function_call_output"', b'"functionResponse"')


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The call that the model makes where a tool of this name is offered and has not answered yet."""

    tool: str
    arguments: dict[str, Any] = {}

    def as_text(self) -> str:
        """The arguments as the APIs of OpenAI carry them: JSON in a string."""
        return encode(self.arguments).decode()


class Offer(msgspec.Struct):
    """A tool as a request offers it: named beside `type` (Anthropic, Responses), or one level down (chat)."""

    name: str = ""
    function: dict[str, Any] = {}

    def is_for(self, call: ToolCall) -> bool:
        """Is this the tool that the model would call?"""
        return call.tool in {self.name, self.function.get("name")}


def due(call: ToolCall | None, offers: list[Offer] | None, turns: list[msgspec.Raw]) -> ToolCall | None:
    """The call to make now; None: answer in words. `turns` are the messages or items of the conversation.

    The last turn tells whether the tool has answered: of chat by its role, of Responses by its type, of
    Anthropic and Gemini by a part within it.
    """
    if call is None or not any(offer.is_for(call) for offer in offers or ()):
        return None
    last = bytes(turns[-1]) if turns else b""
    answered = any(mark in last for mark in _ANSWERS)
    return None if answered or _role_of(last) == "tool" else call


class _Turn(msgspec.Struct):
    role: str = ""


def _role_of(turn: bytes) -> str:
    return msgspec.json.decode(turn, type=_Turn).role if turn else ""
