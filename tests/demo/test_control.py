from __future__ import annotations

import pytest

from proxy.demo import Behaviour, Brownout, Hang, Ok, Outage, Refuse


@pytest.mark.parametrize(
    ("asked", "mode"),
    [
        ({"name": "ok"}, Ok()),
        ({"name": "outage"}, Outage(answer="close")),
        ({"name": "outage", "answer": "500"}, Outage(answer="500")),
        ({"name": "brownout", "share": 0.5, "factor": 0.25}, Brownout(share=0.5, factor=0.25)),
        ({"name": "hang"}, Hang()),
        ({"name": "refuse", "retry_after_s": 2}, Refuse(retry_after_s=2)),
    ],
)
async def test_a_mode_is_switched_and_shown(demo, http, asked, mode):
    answer = await http.post("/_demo/mode", json=asked)
    assert answer.status_code == 200
    assert demo.upstream.behaviour.mode == mode
    assert answer.json()["name"] == asked["name"]
    assert (await http.get("/_demo/mode")).json() == answer.json()


async def test_the_capacity_is_changed_in_part_and_shown(demo, http):
    answer = await http.post("/_demo/capacity", json={"slots": 3, "latency_s": 1, "knee": 5})
    assert answer.status_code == 200
    assert answer.json() == {
        "slots": 3,
        "latency_s": 1.0,
        "sigma": 0.0,
        "knee": 5,
        "stream_events": 8,
        "event_gap_s": 0.0,
        "seed": 0,
        "mcp_sse": False,
        "limits": None,
        "tool_bytes": 0,
        "cached": 0.0,
        "calls": None,
    }
    assert demo.upstream.behaviour == Behaviour(slots=3, latency_s=1, knee=5, event_gap_s=0)
    assert (await http.get("/_demo/capacity")).json() == answer.json()


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("mode", b"", "truncated"),
        ("mode", b"{", "truncated"),
        ("mode", b"[]", "Expected `object`"),
        ("mode", b"{}", "required field `name`"),
        ("mode", b'{"name":"sulk"}', "Invalid value 'sulk'"),
        ("mode", b'{"name":"outage","answer":"404"}', "Invalid enum value '404'"),
        ("mode", b'{"name":"brownout","share":2}', "<= 1.0"),
        ("mode", b'{"name":"hang","for":2}', "unknown field `for`"),
        ("capacity", b"7", "Expected `object`"),
        ("capacity", b'{"slots":0}', "slots: Expected `int` >= 1"),
        ("capacity", b'{"slots":4,"slot":1}', "no field is called 'slot'"),
        ("capacity", b'{"slots":4,"sigma":"x"}', "sigma: Expected `float`, got `str`"),
        ("capacity", b'{"mode":{"name":"hang"}}', "POST /_demo/mode"),
    ],
)
async def test_what_makes_no_sense_is_a_400_that_says_why_and_changes_nothing(demo, http, path, body, said):
    before = repr(demo.upstream.behaviour)
    answer = await http.post(f"/_demo/{path}", content=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]
    assert repr(demo.upstream.behaviour) == before


async def test_the_ledger_is_read_with_and_without_its_rows(demo, http):
    await http.get("/tools/weather?q=1", headers={"authorization": "Bearer secret"})
    counters = (await http.get("/_demo/ledger")).json()
    assert counters == demo.upstream.ledger.snapshot() | {"serving": 0, "waiting": 0}
    [row] = (await http.get("/_demo/ledger?entries=1")).json()["entries"]
    assert (row["tool"], row["query"], row["ending"], row["status"]) == ("weather", "q=1", "done", 200)
    assert ["authorization", "Bearer secret"] in row["headers"]


async def test_a_reset_restores_the_start(demo, http):
    await http.get("/tools/weather")
    await http.post("/_demo/capacity", json={"slots": 3})
    await http.post("/_demo/mode", json={"name": "hang"})
    answer = await http.post("/_demo/reset")
    assert (answer.status_code, answer.json()["arrivals"]) == (200, 0)
    assert demo.upstream.behaviour == Behaviour(latency_s=0, event_gap_s=0)


async def test_control_answers_in_every_mode_and_leaves_no_trace_in_the_ledger(demo, http):
    demo.upstream.behaviour.mode = Outage()
    assert (await http.get("/_demo/ledger")).json()["arrivals"] == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("DELETE", "ledger", 405), ("GET", "reset", 405), ("PUT", "mode", 405), ("GET", "nothing", 404)],
)
async def test_a_wrong_method_or_name_is_told(http, method, path, status):
    answer = await http.request(method, f"/_demo/{path}")
    assert answer.status_code == status
    assert answer.json()["error"]
