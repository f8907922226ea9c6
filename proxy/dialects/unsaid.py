"""What a path tells where the body names the model: nothing."""

# ruff: noqa: ARG002 - the arguments are the base's

from __future__ import annotations

from proxy.dialects.base import Dialect


class InTheBody(Dialect):
    """The part of `Dialect` that only an API with its model in the path has more to say to. A base class."""

    def answers_no_text(self, path: bytes) -> bool:
        """No: what costs tokens, if anything does, writes some."""
        return False

    def model_in(self, path: bytes) -> str:
        """None: the body names it, if anything does."""
        return ""

    def streams(self, path: bytes) -> bool:
        """The body says so, or the server chooses."""
        return False

    def model_in_body(self, path: bytes) -> bool:
        """Yes, wherever there is one."""
        return True
