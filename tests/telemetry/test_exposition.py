"""What a scraper reads: state as gauges, both formats, and the page that documents it all."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics import parser as openmetrics_parser

from proxy.core.events import (
    Admitted,
    BreakerMoved,
    CapMoved,
    Queued,
    Refused,
    Returned,
    Settled,
    StoreMoved,
    WouldQueue,
    WouldRefuse,
)
from proxy.core.state import CapState
from proxy.core.used import Used
from proxy.core.verdict import Outcome, Reason, Refusal
from proxy.stores.contact import Phase
from proxy.telemetry.catalog import CATALOG, PREFIX
from proxy.telemetry.counts import MOST_VALUES
from tests.telemetry.kit import BUSY, EMPTY, Told, call

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def told_of_everything() -> Told:
    """Every metric has at least one sample."""
    told, one = Told(BUSY), call()
    told.emit(Queued(one, "openai"))
    told.emit(Admitted(one, "openai", 0.5))
    told.emit(Settled(one, "openai", Outcome.SUCCEEDED, 0.1))
    told.emit(Refused(call(), Refusal(Reason.SHED, "route:chat", 1.0), "openai", 0.0))
    told.emit(WouldRefuse(one, "openai", Reason.CAP_REACHED, "upstream:openai"))
    told.emit(WouldQueue(call(), "openai", Reason.CAP_REACHED, "upstream:openai"))
    told.emit(Returned(one, "openai", admitted=True))
    told.emit(BreakerMoved("openai", "closed", "open", "why"))
    told.emit(BreakerMoved("mcp", "closed", "open", "why", "tool:github/*"))
    told.emit(CapMoved("openai", 16, 24, "raised"))
    told.telemetry.relayed(one, "openai", outcome=Outcome.FAILED, status=500, total_s=1.0, first_byte_s=0.5)
    told.telemetry.unknown_priority("chat")
    told.telemetry.malformed("chat")
    told.telemetry.held("chat")
    told.telemetry.retried("chat", "succeeded")
    told.telemetry.tokens("chat", 100.0, Used(60.0, 40.0))
    told.telemetry.spending.paid("chat", "openai", "USD", 450)
    told.telemetry.spending.paid("chat", "openai", "USD", None)
    told.telemetry.reloaded(ok=True)
    told.telemetry.trip_answered(0.003)
    told.emit(StoreMoved("redis://10.0.0.5:6379/0", "lost", "alone", "why"))
    return told


def test_every_number_of_the_gates_state_is_a_gauge() -> None:
    seen = Told(BUSY).scrape()
    openai = {"upstream": "openai"}
    bucket = {"bucket": "chat/caller/requests", "scope": "nightly"}
    assert seen.get("draining") == 1
    assert seen.get("queue_depth", route="chat", priority="critical") == 3
    assert seen.get("queue_depth", route="chat", priority="background") == 0
    assert seen.get("queue_oldest_seconds", route="chat", priority="critical") == 1.25
    assert seen.get("queue_bytes", route="chat") == 4096
    assert seen.get("in_flight", cap="upstream:openai") == 7
    assert seen.get("cap_slots", cap="upstream:openai") == 8
    assert seen.get("bucket_level", **bucket) == 4.5
    assert seen.get("bucket_burst", **bucket) == 50
    assert seen.get("breaker_calls", **openai) == 21
    assert seen.get("breaker_failure_ratio", **openai) == 0.5
    assert seen.get("breaker_slow_ratio", **openai) == 0.25
    assert seen.get("breaker_next_probe_seconds", **openai) == 3.5
    assert seen.get("retry_budget_balance", **openai) == 9.75
    assert seen.get("pressure", **openai) == 0.625
    any_tool = {"route": "github", "tool": "*"}
    assert seen.get("tool_queue_depth", **any_tool) == 5
    assert seen.get("tool_queue_oldest_seconds", **any_tool) == 2.5
    assert seen.get("tool_breakers_open", **any_tool) == 2
    phases = [
        seen.get("tool_breaker_phase", **any_tool, phase=phase) for phase in ("closed", "open", "half-open")
    ]
    assert phases == [0, 1, 0]


def test_what_the_proxy_holds_open_is_a_gauge() -> None:
    seen = Told().scrape()
    assert seen.get("upstream_connections", upstream="openai", state="in_use") == 7
    assert seen.get("upstream_connections", upstream="openai", state="idle") == 2
    assert seen.get("tasks") == 11


def test_how_this_replica_stands_with_a_shared_store_is_gauges_and_counters() -> None:
    told = told_of_everything()
    told.emit(StoreMoved("redis://10.0.0.5:6379/0", "shared", "lost", "no answer in 50 ms"))
    told.telemetry.trip_answered(0.02)
    seen = told.scrape()
    phases = {str(phase): seen.get("store_phase", phase=phase) for phase in Phase}
    assert phases == {**dict.fromkeys(map(str, Phase), 0), "alone": 1}
    moves = {str(phase): seen.get("store_moves_total", phase=phase) for phase in Phase}
    assert moves == {**dict.fromkeys(map(str, Phase), 0), "alone": 1, "lost": 1}
    assert seen.get("store_trips_total", result="answered") == 78
    assert seen.get("store_trips_total", result="missed") == 12
    assert seen.get("store_asks_total") == 450
    assert seen.get("store_replicas") == 4
    assert seen.get("store_trip_seconds_count") == 2
    assert seen.get("store_trip_seconds_sum") == pytest.approx(0.023)
    assert seen.get("store_trip_seconds_bucket", le="0.005") == 1
    assert seen.get("cap_slots", cap="tool:github/search") == 2
    assert seen.get("cap_leased", cap="tool:github/search") == 1
    assert seen.get("cap_leased", cap="upstream:openai") is None  # each replica's own


def test_who_shares_no_store_has_no_metric_about_one() -> None:
    told = Told(dataclasses.replace(BUSY, store=None))
    names = {family.name for family in told.scrape().families}
    assert {name for name in names if "store" in name or "leased" in name} == set()


def test_what_is_leased_of_caps_beyond_the_bound_is_summed_up() -> None:
    told = Told()
    tools = tuple(CapState(f"tool:github/{n}", 1, 2, leased=None if n % 2 else 1) for n in range(MOST_VALUES))
    told.state = dataclasses.replace(BUSY, caps=tools)
    told.scrape()
    more = tuple(CapState(f"tool:more/{n}", 1, 8, leased=n or None) for n in range(4))
    told.state = dataclasses.replace(BUSY, caps=(*tools, *more))
    assert told.scrape().get("cap_leased", cap="others") == 6


def test_a_breaker_is_in_exactly_one_phase() -> None:
    seen = Told(BUSY).scrape()
    phases = {
        p: seen.get("breaker_phase", upstream="openai", phase=p) for p in ("closed", "open", "half-open")
    }
    assert phases == {"closed": 0, "open": 0, "half-open": 1}


def test_the_state_is_asked_once_for_a_scrape() -> None:
    told, asked = Told(), []
    told.telemetry._state = lambda: asked.append(1) or EMPTY  # type: ignore[func-returns-value]
    told.telemetry.expose()
    assert len(asked) == 1


def test_caps_of_tools_that_name_themselves_are_summed_up_beyond_the_bound() -> None:
    told = Told()
    own = CapState("upstream:openai", 5, 8)
    told.state = dataclasses.replace(EMPTY, caps=(own,))
    told.scrape()
    series = set()
    for n in range(10_000 // 50):
        tools = tuple(CapState(f"tool:github/{n}-{k}", 1, 2) for k in range(50))
        told.state = dataclasses.replace(EMPTY, caps=(*tools, own))
        seen = told.scrape()
        assert seen.total("in_flight") == 55
        assert seen.get("in_flight", cap="upstream:openai") == 5
        series |= {sample.labels["cap"] for sample in seen.samples if "cap" in sample.labels}
    assert len(series) == MOST_VALUES + 1
    assert seen.get("in_flight", cap="others") == 50
    assert seen.get("cap_slots", cap="others") == 100


@pytest.mark.parametrize("accept", ["", "text/plain", OPENMETRICS])
def test_what_is_encoded_in_pieces_is_what_prometheus_client_writes_at_once(accept: str) -> None:
    told = told_of_everything()
    whole = openmetrics.generate_latest if accept == OPENMETRICS else generate_latest
    body, content_type = told.telemetry.expose(accept)
    assert content_type.startswith("application/openmetrics-text" if accept == OPENMETRICS else "text/plain")

    def ours(text: bytes) -> list[str]:  # the figures of the running process change between two scrapes
        return [line for line in text.decode().splitlines() if "process_" not in line]

    assert ours(body) == ours(whole(told.telemetry.registry))


def test_openmetrics_parses_and_ends_as_it_must() -> None:
    body, _ = told_of_everything().telemetry.expose(OPENMETRICS)
    families = list(openmetrics_parser.text_string_to_metric_families(body.decode()))
    assert {family.type for family in families} == {"counter", "gauge", "histogram"}
    assert body.endswith(b"# EOF\n")


def test_every_metric_of_the_catalog_is_exposed_with_its_labels() -> None:
    seen = told_of_everything().scrape()
    exposed = {}
    for family in seen.families:
        if family.name.startswith(PREFIX):
            labels = {name for sample in family.samples for name in sample.labels} - {"le"}
            suffix = "_total" if family.type == "counter" else ""
            exposed[family.name.removeprefix(PREFIX) + suffix] = (family.type, labels)
    assert exposed == {name: (entry.kind, set(entry.labels)) for name, entry in CATALOG.items()}


def test_the_page_documents_every_metric_and_no_other() -> None:
    rows = re.findall(r"^\| `backpressure_(\w+)` \| (\w+) \| ([\w, ]*) ?\|", PAGE.read_text(), re.MULTILINE)
    documented = {name: (kind, tuple(labels.replace(",", "").split())) for name, kind, labels in rows}
    assert len(rows) == len(documented), "a metric is documented twice"
    assert documented == {name: (entry.kind, entry.labels) for name, entry in CATALOG.items()}


def test_the_page_names_what_prometheus_client_adds_about_the_process() -> None:
    page = PAGE.read_text()
    names = {sample.name for sample in Told().scrape().samples if not sample.name.startswith(PREFIX)}
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_the_queries_of_the_page_use_metrics_that_exist() -> None:
    page = PAGE.read_text()
    alerts = page.partition("What to watch")[2].partition("##")[0]
    queries = page.partition("## Questions")[2]
    for part in (alerts, queries):
        names = set(re.findall(r"backpressure_(\w+?)(?:_bucket)?\b", part))
        assert names
        assert names <= set(CATALOG)
