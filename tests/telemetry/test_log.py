"""Log lines: JSON, bounded, and without anything that should not be told."""

from __future__ import annotations

import io
import json

import pytest

from proxy.core.events import Admitted, BreakerMoved, Refused, Settled, StoreMoved, WouldQueue, WouldRefuse
from proxy.core.verdict import Outcome, Reason, Refusal
from proxy.telemetry import Log
from proxy.telemetry.lines import LONGEST_TEXT
from tests.telemetry.kit import Told, call


def refuse(told: Told, *, reason: Reason = Reason.BUCKET_EMPTY, **fields: str) -> None:
    refusal = Refusal(reason, "caller:3fa9c1", 2.4004, "1 requests/3s")
    told.emit(Refused(call(**fields), refusal, "openai", 0.25))


def test_a_refusal_is_one_line_that_says_who_what_why_and_how_long() -> None:
    told = Told()
    refuse(told, run="9bc2", tool="search")
    assert told.lines() == [
        {
            "ts": "2023-11-14T22:13:20.250Z",
            "event": "refused",
            "level": "warning",
            "reason": "bucket_empty",
            "scope": "caller:3fa9c1",
            "route": "chat",
            "priority": "normal",
            "caller": "3fa9c1",
            "run": "9bc2",
            "upstream": "openai",
            "tool": "search",
            "retry": False,
            "waited_ms": 250.0,
            "retry_after_ms": 2400.4,
            "status": 429,
            "detail": "1 requests/3s",
        }
    ]
    assert list(told.lines()[0])[:3] == ["ts", "event", "level"]


@pytest.mark.parametrize(("what", "event"), [("would_refuse", WouldRefuse), ("would_queue", WouldQueue)])
def test_what_a_dry_run_would_have_done_is_one_line_and_a_flood_of_it_few(
    what: str, event: type[WouldRefuse | WouldQueue]
) -> None:
    told = Told(lines_per_s=2)
    for _ in range(5):
        told.emit(event(call(run="9bc2"), "openai", Reason.BUCKET_EMPTY, "caller:3fa9c1"))
    assert len(told.lines()) == 2
    assert told.lines()[0] == {
        "ts": "2023-11-14T22:13:20.250Z",
        "event": what,
        "level": "info",
        "reason": "bucket_empty",
        "scope": "caller:3fa9c1",
        "route": "chat",
        "priority": "normal",
        "caller": "3fa9c1",
        "run": "9bc2",
        "upstream": "openai",
        "tool": "",
        "retry": False,
    }


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_can_be_logged_under_its_own_name(reason: Reason) -> None:
    told = Told()
    refuse(told, reason=reason)
    assert told.lines()[0]["reason"] == str(reason)


def test_a_failed_call_is_one_line_and_a_call_that_went_well_is_none() -> None:
    told, one = Told(), call()
    told.emit(Admitted(one, "openai", 0.0))
    told.emit(Settled(one, "openai", Outcome.SUCCEEDED, 0.1))
    told.telemetry.relayed(one, "openai", outcome=Outcome.SUCCEEDED, status=200, total_s=0.1)
    told.telemetry.relayed(
        one,
        "openai",
        outcome=Outcome.FAILED,
        status=None,
        total_s=120.5,
        reason=Reason.UPSTREAM_TIMEOUT,
        detail="first byte after 120s",
    )
    (line,) = told.lines()
    assert (line["event"], line["level"], line["reason"]) == ("failed", "error", "upstream_timeout")
    assert (line["status"], line["took_ms"], line["detail"]) == (None, 120500.0, "first byte after 120s")


def test_breakers_reloads_start_and_stop_are_logged() -> None:
    told = Told()
    told.log.started("1.2.3", "127.0.0.1:8080", "127.0.0.1:8081")
    told.emit(BreakerMoved("openai", "closed", "open", "20 of 20 calls failed"))
    told.telemetry.reloaded(ok=True)
    told.telemetry.reloaded(ok=False, problems="a.yaml:3: burts: did you mean burst?")
    told.log.draining(30.0)
    told.log.stopped()
    assert [(line["event"], line["level"]) for line in told.lines()] == [
        ("started", "info"),
        ("breaker_moved", "warning"),
        ("reloaded", "info"),
        ("reload_failed", "error"),
        ("draining", "info"),
        ("stopped", "info"),
    ]
    assert told.lines()[1]["detail"] == "20 of 20 calls failed"
    assert told.lines()[1]["scope"] == "upstream:openai"


@pytest.mark.parametrize(
    ("phase", "level"),
    [
        ("shared", "info"),
        ("learning", "info"),
        ("lost", "warning"),
        ("alone", "warning"),
        ("given_up", "error"),
    ],
)
def test_a_move_of_the_store_is_one_line_as_grave_as_it_is(phase: str, level: str) -> None:
    told = Told()
    told.emit(
        StoreMoved("rediss://cache:6379/2", "joining", phase, "rediss://cache:6379: no answer in 50 ms")
    )
    (line,) = told.lines()
    assert line == {
        "ts": "2023-11-14T22:13:20.250Z",
        "event": "store_moved",
        "level": level,
        "store": "rediss://cache:6379/2",
        "old": "joining",
        "new": phase,
        "detail": "rediss://cache:6379: no answer in 50 ms",
    }


def test_a_flood_of_refusals_becomes_a_few_lines_and_a_count() -> None:
    told = Told(lines_per_s=3)
    for _ in range(1000):
        refuse(told)
    assert len(told.lines()) == 3
    told.clock.now += 1.0
    refuse(told)
    assert [line.get("suppressed") for line in told.lines()] == [None, None, None, 997]
    assert told.scrape().get("log_lines_suppressed_total") == 997


def test_a_flood_of_one_reason_does_not_hide_another_nor_another_route() -> None:
    told = Told(lines_per_s=1)
    for _ in range(5):
        refuse(told)
        refuse(told, reason=Reason.SHED)
        refuse(told, route="github")
    assert [(line["reason"], line["route"]) for line in told.lines()] == [
        ("bucket_empty", "chat"),
        ("shed", "chat"),
        ("bucket_empty", "github"),
    ]


def test_a_flood_of_routes_without_end_is_bounded_too() -> None:
    told = Told(lines_per_s=1)
    for n in range(10_000):
        refuse(told, route=f"route-{n}")
    assert len(told.lines()) == 2001  # one for each kind of line told apart, one for all the rest


def test_what_was_suppressed_last_is_told_at_the_end() -> None:
    told = Told(lines_per_s=1)
    refuse(told)
    refuse(told)
    told.log.stopped()
    told.log.stopped()
    assert [(line["event"], line.get("of"), line.get("suppressed")) for line in told.lines()[1:3]] == [
        ("suppressed", "refused/bucket_empty/chat", 1),
        ("stopped", None, None),
    ]
    assert [line["event"] for line in told.lines()].count("suppressed") == 1


def test_a_name_from_outside_cannot_forge_a_line() -> None:
    told = Told()
    name = 'a"}\n{"event": "forged"}\r\u2028\x1b[31m\x00'
    refuse(told, tool=name)
    assert len(told.out.getvalue().splitlines()) == 1
    assert told.out.getvalue().isascii()
    assert told.lines()[0]["tool"] == name


def test_a_name_that_is_no_valid_unicode_is_logged_all_the_same() -> None:
    told = Told()
    refuse(told, tool="\ud800")
    assert told.lines()[0]["tool"] == "\ud800"


def test_a_name_as_long_as_a_path_is_cut() -> None:
    told = Told()
    refuse(told, tool="x" * 60_000)
    assert told.lines()[0]["tool"] == "x" * LONGEST_TEXT


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcDEF0123456789abcDEF",
        "sk-ant-api03-abcDEF0123456789",
        "ghp_abcdefghij0123456789",
        "AIzaSyA1234567890abcdefg",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        "s3cr3tpassw0rd",
    ],
)
def test_a_credential_in_a_free_text_is_not_written(secret: str) -> None:
    told = Told()
    refuse(told, tool=f"Bearer {secret}")
    told.telemetry.reloaded(
        ok=False, problems=f"store: redis://user:{secret}@host is no URL; Authorization: bearer {secret}"
    )
    if not secret.startswith("s3"):
        refuse(told, tool=f"path/{secret}")
    assert secret not in told.out.getvalue()
    assert told.out.getvalue().count("[redacted]") >= 2


def test_ordinary_words_are_not_taken_for_credentials() -> None:
    told = Told()
    ordinary = "task-list, sk-learn, basic auth, http://host:80/path, bearer token, cut after 512 bytes"
    refuse(told, tool=ordinary)
    assert told.lines()[0]["tool"] == ordinary


def test_a_line_that_cannot_be_written_is_counted_and_fails_no_call() -> None:
    told = Told()
    told.out.close()
    refuse(told)
    seen = told.scrape()
    assert seen.get("log_lines_lost_total") == 1
    assert seen.total("calls_refused_total") == 1


def test_without_a_log_everything_is_still_counted(capsys: pytest.CaptureFixture[str]) -> None:
    told = Told()
    told.telemetry._log = None
    refuse(told)
    told.emit(BreakerMoved("openai", "closed", "open", "why"))
    told.emit(StoreMoved("redis://10.0.0.5:6379/0", "lost", "alone", "why"))
    told.telemetry.reloaded(ok=True)
    told.telemetry.relayed(call(), "openai", outcome=Outcome.FAILED, status=500, total_s=1.0)
    assert told.scrape().total("calls_refused_total") == 1
    assert (told.out.getvalue(), capsys.readouterr().out) == ("", "")


def test_lines_go_to_standard_output_unless_told(capsys: pytest.CaptureFixture[str]) -> None:
    Log().started("1.2.3", "127.0.0.1:8080", "127.0.0.1:8081")
    assert json.loads(capsys.readouterr().out)["event"] == "started"


def test_the_log_keeps_to_itself_what_structlog_was_configured_to(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    Log(out).stopped("by hand")
    assert json.loads(out.getvalue())["detail"] == "by hand"
    assert capsys.readouterr().out == ""
