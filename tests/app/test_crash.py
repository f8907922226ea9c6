from __future__ import annotations

import httpx

from proxy.pipeline import Pipeline
from tests.kit.running import before_demo


async def test_a_defect_ends_one_call_with_500_is_logged_and_counted_and_leaks_nothing(monkeypatch):
    async def broken(self, wire):
        raise KeyError(dict(wire.headers)[b"authorization"])

    async with before_demo() as proxy, httpx.AsyncClient() as client:
        with monkeypatch.context() as patch:
            patch.setattr(Pipeline, "serve", broken)
            answer = await client.get(f"{proxy.url}/tools/search", headers={"authorization": "sk-secret"})
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"
        (line,) = [line for line in proxy.lines() if line["event"] == "crashed"]
        assert line["error"] == "KeyError"
        assert "test_crash.py" in line["detail"]
        assert "sk-secret" not in answer.text + proxy.log.getvalue()
        assert "backpressure_crashes_total 1.0" in await proxy.metrics()
        assert (await client.get(f"{proxy.url}/tools/search")).status_code == 200
