"""The judge of real clients: what it must find wrong, it finds."""

from __future__ import annotations

import pytest

from proxy.dialects.words import WORDS
from tests.clients.judging import Attempt, Played, faults
from tests.clients.rows import CLIENTS
from tests.clients.scenes import SCENES, SENTENCE
from tests.clients.table import cell

(OPENAI,) = [client for client in CLIENTS if client.name == "openai (Python)"]
ANSWER = {"answer": SENTENCE}


def scene(name):
    (found,) = [each for each in SCENES if each.name == name]
    return found


def raised(name, error="RateLimitError"):
    return {"error": error, "status": 429, "text": f"Error: {WORDS[scene(name).reason].fact}"}


def refused(name, told_ms=2000, waited_ms=None, status=429):
    return Attempt(status, str(scene(name).reason), told_ms, waited_ms)


LET_IN = Attempt(200, "", None, None)


def judged(name, *attempts, said=None, told=None):
    if told is None and scene(name).reason is not None:
        told = raised(name)
    return faults(scene(name), OPENAI, Played(attempts, said or ANSWER, told or {}, heard=None))


def test_who_comes_back_when_told_and_is_let_in_did_right():
    assert judged("rate limited", refused("rate limited", 2000, 1996.0), LET_IN) == []


@pytest.mark.parametrize(
    ("attempts", "fault"),
    [
        ([refused("shed", 2000, 1994.0), LET_IN], "came back after 1994 ms of 2000"),
        ([refused("shed", 2000, 2001.0), refused("shed")], "came back as told and got 429 shed"),
        ([refused("shed")], "does not return"),
        ([LET_IN], "the proxy said 200, not shed"),
    ],
)
def test_an_early_return_a_broken_promise_and_no_return_are_found(attempts, fault):
    assert any(fault in each for each in judged("shed", *attempts)), judged("shed", *attempts)


def test_a_stop_that_is_repeated_is_found():
    stop = [refused("run budget spent", None, 10.0, 400), refused("run budget spent", None, None, 400)]
    told = raised("run budget spent", "BadRequestError")
    assert "repeats a stop" in judged("run budget spent", *stop, told=told)
    assert judged("run budget spent", stop[1], said=told, told=told) == []


def test_another_error_and_words_that_nobody_can_read_are_found():
    back = [refused("shed", 2000, 2001.0), LET_IN]
    other = judged("shed", *back, told=raised("shed", "ValueError"))
    assert other == ["raises ValueError, not RateLimitError"]
    hidden = judged("shed", *back, told={"error": "RateLimitError", "text": "429"})
    assert hidden == ["hides our words: '429'"]
    assert "takes a refusal for an answer" in judged("shed", *back, told=ANSWER)


def test_an_answer_that_did_not_come_whole_is_found():
    assert judged("plain", LET_IN, said={"answer": "There is"})
    assert judged("streamed", LET_IN, said={**ANSWER, "pieces": 1})
    assert judged("tool call", LET_IN, LET_IN, said={**ANSWER, "tool": {"city": "Rome"}})
    assert judged("plain", LET_IN, LET_IN) == ["made 2 requests"]
    assert judged("plain", LET_IN) == []


def test_a_cell_tells_the_attempts_and_the_times():
    played = Played((refused("shed", 2000, 2010.4), LET_IN), ANSWER, raised("shed"), None)
    assert cell(scene("shed"), played, right=True) == "✓ 2, 2.01 of 2.00 s"
    assert cell(scene("shed"), played, right=False) == "✗ 2, 2.01 of 2.00 s"
    assert cell(scene("plain"), played, right=True) == "✓"
