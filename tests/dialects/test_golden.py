"""Every reason in every dialect, byte for byte. BACKPRESSURE_WRITE_GOLDEN=1 writes the files anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.core.verdict import Reason, Refusal
from proxy.dialects import Answer, Ask, dialect_named
from tests.dialects.refusals import UNBOOKED, example, unbooked

GOLDEN = Path(__file__).parent / "golden"

TOOL_CALL = Ask(method="tools/call", tool="search", ids=(7,))
READ = Ask(method="resources/read", ids=("a-1",))
FORMS: dict[str, tuple[str, Ask | None, str]] = {
    "openai": ("openai", None, "result"),
    "anthropic": ("anthropic", None, "result"),
    "gemini": ("gemini", None, "result"),
    "rest": ("rest", None, "result"),
    "mcp_result": ("mcp", TOOL_CALL, "result"),
    "mcp_error": ("mcp", TOOL_CALL, "error"),
    "mcp_http": ("mcp", TOOL_CALL, "http"),
    "mcp_not_a_tool": ("mcp", READ, "result"),
    "mcp_unread": ("mcp", None, "result"),
}


def compare(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("BACKPRESSURE_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def printed(answer: Answer) -> str:
    head = [str(answer.status), *(f"{name.decode()}: {value.decode()}" for name, value in answer.headers)]
    return "\n".join([*head, "", answer.body.decode()])


@pytest.mark.parametrize("form", FORMS)
def test_every_reason_is_refused_as_recorded(form: str) -> None:
    dialect, ask, refuse_as = FORMS[form]
    answers = [
        f"=== {reason}\n{printed(dialect_named(dialect).refuse(example(reason), ask, refuse_as=refuse_as))}\n"
        for reason in Reason
    ]
    compare(f"{form}.txt", "\n".join(answers))


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini", "rest", "mcp"])
def test_refusals_without_a_time_are_as_recorded(name: str) -> None:
    answers = [
        f"=== {reason}\n{printed(dialect_named(name).refuse(Refusal(reason, 'route:chat'), None))}\n"
        for reason in Reason
    ]
    compare(f"{name}_untimed.txt", "\n".join(answers))


@pytest.mark.parametrize("form", ["openai", "anthropic", "gemini", "rest", "mcp_result", "mcp_unread"])
def test_refusals_for_which_no_place_is_kept_are_as_recorded(form: str) -> None:
    dialect, ask, refuse_as = FORMS[form]
    refuse = dialect_named(dialect).refuse
    answers = [
        f"=== {reason}\n{printed(refuse(unbooked(reason), ask, refuse_as=refuse_as))}\n"
        for reason in UNBOOKED
    ]
    compare(f"{form}_unbooked.txt", "\n".join(answers))


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini", "mcp"])
def test_cuts_are_as_recorded(name: str) -> None:
    cuts = [
        f"=== {reason}\n{(dialect_named(name).cut(example(reason), TOOL_CALL) or b'').decode()}"
        for reason in (Reason.UPSTREAM_FAILED, Reason.UPSTREAM_TIMEOUT, Reason.RUN_HALTED, Reason.DRAINING)
    ]
    compare(f"{name}_cut.txt", "\n".join(cuts))


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini", "rest", "mcp"])
def test_other_errors_are_as_recorded(name: str) -> None:
    errors = {400: "malformed", 404: "unknown_route", 413: "body_too_large", 431: "headers_too_large"}
    errors |= {502: "upstream_failed", 504: "upstream_timeout"}
    answers = [
        f"=== {status}\n{printed(dialect_named(name).error(status, code, 'What is wrong.'))}\n"
        for status, code in errors.items()
    ]
    compare(f"{name}_errors.txt", "\n".join(answers))
