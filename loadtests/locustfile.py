"""Three kinds of agents that call a model through the proxy as an SDK would: they know a base URL, no more.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8080

Arrivals are open loop: each user lets calls arrive as a Poisson stream of `--calls-per-second`, whatever
becomes of the earlier ones. Under locust's statistics, `CALL` is a logical call from its scheduled arrival
to its last answer, `POST` one attempt. `make load` (load.py) runs this file and reads `--records`.
"""

from __future__ import annotations

import gc
import json
import time
from dataclasses import asdict
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import gevent
from agents import KINDS, CallRecord, arrivals, end_of, request, wait_before_retry
from gevent.pool import Group
from locust import FastHttpUser, constant, events, task
from locust.exception import StopUser

RECORDS: list[CallRecord] = []
NUMBERS = count(1)
LIVING = Group()


@events.init_command_line_parser.add_listener
def declare_options(parser: Any) -> None:
    parser.add_argument("--calls-per-second", type=float, default=1.0, help="logical calls each user starts")
    parser.add_argument("--arrive-for", type=float, default=0.0, help="seconds of arrivals; 0: no end")
    parser.add_argument("--path", default="/openai/v1/chat/completions", help="what is called below the host")
    parser.add_argument("--records", default="", help="write each logical call here, a JSON line each")


@events.test_start.add_listener
def spare_the_collector(**_: Any) -> None:
    """What is loaded stays: walking through all of it stops every arrival for 70 ms every few seconds."""
    gc.collect()
    gc.freeze()


@events.quitting.add_listener
def write_records(environment: Any, **_: Any) -> None:
    if path := environment.parsed_options.records:
        with Path(path).open("w") as lines:
            lines.writelines(json.dumps(asdict(record)) + "\n" for record in RECORDS)


class Agent(FastHttpUser):
    """One agent: a caller of its own, any number of calls at once, each with the SDK's retries."""

    abstract = True
    kind = KINDS[0]
    wait_time = constant(0)  # the task paces itself
    concurrency = 1000
    connection_timeout = 5.0

    def on_start(self) -> None:
        self.caller = f"{self.kind.priority}-{next(NUMBERS)}"
        self.chance = Random(self.caller)
        self.calls = count(1)

    @task
    def let_calls_arrive(self) -> None:
        options = self.environment.parsed_options
        begun_at = time.monotonic()
        calls = Group()
        LIVING.add(gevent.getcurrent())
        try:
            for at in arrivals(options.calls_per_second, begun_at, self.chance):
                if options.arrive_for and at > begun_at + options.arrive_for:
                    break
                gevent.sleep(max(0.0, at - time.monotonic()))
                calls.spawn(self.call, at)
            calls.join()
        finally:
            calls.kill()
            LIVING.discard(gevent.getcurrent())
        if not LIVING:
            gevent.spawn(self.environment.runner.quit)
        raise StopUser

    def call(self, scheduled_at: float) -> None:
        """One logical call: attempts until one is final or the answer would come too late."""
        record = CallRecord(self.kind.priority, scheduled_at, started_at=time.monotonic())
        RECORDS.append(record)
        give_up_at = scheduled_at + self.kind.patience_s
        number = next(self.calls)
        for attempt in count():
            status, headers = self.attempt(number, attempt, record)
            now = time.monotonic()
            wait_s = wait_before_retry(status, headers, attempt, self.chance.random(), time.time())
            if wait_s is None or now + wait_s >= give_up_at:
                record.ended_at = now
                final = wait_s is None
                record.end = end_of(self.kind, status, now, scheduled_at) if final else "gave_up"
                break
            gevent.sleep(wait_s)
        self.environment.events.request.fire(
            request_type="CALL",
            name=self.kind.priority,
            response_time=record.latency_s * 1000,
            response_length=0,
            exception=None if record.end == "good" else RuntimeError(record.end),
            context={},
        )

    def attempt(self, call: int, attempt: int, record: CallRecord) -> tuple[int, dict[str, str]]:
        """One POST: its status (0 without an answer) and its headers, by names in lower case."""
        headers, body = request(self.kind, self.caller, call, attempt)
        path = self.environment.parsed_options.path
        with self.client.post(
            path, data=body, headers=headers, name=self.kind.priority, catch_response=True
        ) as answer:
            told = {name.lower(): value for name, value in (answer.headers or {}).items()}
            status = answer.status_code or 0
            reason = told.get("x-backpressure-reason", "")
            if status >= 400:
                answer.failure(f"{status} {reason}")
        record.statuses.append(status)
        if reason:
            record.reasons.append(reason)
        if status in {429, 503} and "retry-after" not in told:
            record.told_nothing += 1
        return status, told


class Critical(Agent):
    kind = KINDS[0]
    weight = kind.part
    network_timeout = kind.patience_s


class Normal(Agent):
    kind = KINDS[1]
    weight = kind.part
    network_timeout = kind.patience_s


class Background(Agent):
    kind = KINDS[2]
    weight = kind.part
    network_timeout = kind.patience_s
