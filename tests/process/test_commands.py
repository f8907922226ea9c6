"""The commands, run as a user runs them."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.kit.process import ran, started, written
from tests.kit.running import yaml_before

CONFIG = Path(__file__).parents[2] / "config"
GOOD = yaml_before("http://127.0.0.1:9")


async def test_check_of_a_valid_file_says_so_and_exits_0(tmp_path):
    code, out, err = await ran("check", str(written(tmp_path, GOOD)))
    assert (code, err) == (0, "")
    assert out.endswith("valid, 5 routes, 5 upstreams")


async def test_check_prints_every_error_with_file_line_key_and_remedy_and_exits_2(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(
        "upstreams:\n"
        "  a: {url: http://a, dialect: openai, concurrency: many}\n"
        "routes:\n"
        "  - {name: one, path: /a, upstream: a, queue: {size: 1, max_age: 10}}\n"
        "  - {name: one, path: /b, upstream: ${NOT_SET_ANYWHERE}, bukets: []}\n"
    )
    code, out, err = await ran("check", str(file))
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert all(line.startswith(f"{file}:") for line in lines)
    assert any(":2: upstreams.a.concurrency:" in line for line in lines)
    assert any('did you mean "buckets"?' in line for line in lines)
    assert any("NOT_SET_ANYWHERE" in line for line in lines)
    assert "Traceback" not in err


async def test_schema_prints_a_json_schema_that_the_examples_satisfy():
    code, out, _ = await ran("schema")
    assert code == 0
    schema = json.loads(out)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load((CONFIG / "demo.yaml").read_text()), schema)


async def test_explain_prints_what_a_call_would_meet():
    call = ["explain", str(CONFIG / "demo.yaml"), "POST", "/openai/v1/chat/completions?x=1"]
    code, out, err = await ran(*call, "-H", "x-priority: background", "-H", "X-Deadline-Ms: 1500")
    assert (code, err) == (0, "")
    facts = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "openai / background" in facts["lane"]
    assert "POST /v1/chat/completions?x=1" in facts["upstream"]
    assert "upstream:demo_openai: 8 in flight" in facts["cap"]
    assert "caller:anonymous: 30 requests/minute, burst 5" in facts["bucket"]
    assert "1.5s" in facts["deadline"]
    assert "0.5" in facts["shed"]


async def test_explain_knows_a_model_that_the_path_names():
    call = ["explain", str(CONFIG / "demo.yaml"), "POST"]
    _, out, _ = await ran(*call, "/gemini/v1beta/models/demo-large:streamGenerateContent")
    assert "model      demo-large, streamed\n" in out
    _, out, _ = await ran(*call, "/gemini/v1beta/models/demo-large:countTokens")
    assert "model      demo-large\n" in out
    _, out, _ = await ran(*call, "/openai/v1/chat/completions")
    assert "\nmodel " not in out


async def test_explain_tells_run_and_lane_by_what_agents_send(tmp_path):
    file = tmp_path / "agents.yaml"
    file.write_text(
        "priority: {hints: [{header: x-claude-code-request-class, map: {auxiliary: background}},\n"
        "  {body: service_tier, map: {flex: background}}]}\n"
        "runs: {identify: [x-run-id, x-claude-code-session-id, body.prompt_cache_key]}\n"
        "upstreams: {a: {url: 'http://127.0.0.1:9', dialect: openai}}\n"
        "routes: [{name: api, path: /a, upstream: a}]\n"
    )

    async def facts(*headers: str) -> dict[str, str]:
        code, out, err = await ran("explain", str(file), "POST", "/a/v1/responses", *headers)
        assert (code, err) == (0, "")
        return {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()}

    bare = await facts()
    assert (bare["run"], bare["lane"]) == ("anonymous", "api / normal")
    assert bare["body"] == "may name another run and lane"
    said = await facts("-H", "x-claude-code-session-id: s", "-H", "x-claude-code-agent-id: b")
    assert said["run"].startswith("anonymous/")
    assert ", agent " in said["run"]
    assert said["body"] == "may name another lane"
    hinted = await facts("-H", "x-claude-code-request-class: auxiliary")
    assert (hinted["lane"], hinted["body"]) == ("api / background", "may name another run")


async def test_explain_says_what_is_in_dry_run(tmp_path):
    file = tmp_path / "dry.yaml"
    file.write_text(
        "upstreams: {a: {url: 'http://127.0.0.1:9', dialect: rest, concurrency: {slots: 3, enforce: false},\n"
        "  breaker: {enforce: false}}}\n"
        "routes: [{name: web, path: '/web/{tool}', upstream: a, concurrency: 5,\n"
        "  queue: {size: 7, enforce: false}, quotas: [{allow: 9 requests/day, enforce: false}],\n"
        "  buckets: [{rate: 2 requests/s}, {rate: 8 requests/minute, enforce: false}]}]\n"
    )
    code, out, err = await ran("explain", str(file), "GET", "/web/search")
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert [line for line in lines if line.split()[0] in ("cap", "bucket", "quota", "queue")] == [
        "cap route:web: 5 in flight",
        "bucket route:web: 2 requests/second, burst 2",
        "cap upstream:a: 3 in flight (dry run)",
        "bucket route:web: 8 requests/minute, burst 1 (dry run)",
        "quota route:web: 9 requests/day (dry run)",
        "queue 7 calls, 10s (dry run: nobody waits)",
    ]
    assert any(line.startswith("breaker (dry run) opens when") for line in lines)


async def test_explain_knows_callers_caps_pauses_and_retries(tmp_path):
    file = tmp_path / "all.yaml"
    file.write_text(
        "callers: {default: {concurrency: 9}, known: [{name: ops, key: k, concurrency: 3}]}\n"
        "upstreams: {a: {url: 'http://127.0.0.1:9', dialect: rest, concurrency: adaptive,\n"
        "  pause_when: {p95_above: 20s, lanes: [background]}}}\n"
        "routes: [{name: web, path: /web, upstream: a, retries: {when: [connect, 503], calls: all},\n"
        "  queue: {size: 5, max_bytes: 1MiB}}]\n"
    )
    code, out, err = await ran("explain", str(file), "GET", "/web/x", "-H", "x-api-key: k")
    assert (code, err) == (0, "")
    facts = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()}
    assert facts["cap"] == "caller:ops: 3 in flight"
    assert facts["learnt"] == "upstream:a: from 16 on, 4 to 256 in flight"
    assert facts["queue"] == "5 calls, 10s, 1 MiB"
    assert facts["pause"] == "holds background (not this call) once for 30s"
    assert facts["retries"] == "any call, once more by us after connect, 503"
    assert facts["budget"].endswith("10% of first attempts plus 10 a minute")
    assert facts["upstream"] == "a: GET /x"
    _, out, _ = await ran("explain", str(file), "GET", "/web/x", "-H", "x-priority: background")
    assert "(this call too)" in out
    assert "caller:anonymous: 9 in flight" in out


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("share", "each replica goes on with its share"),
        ("refuse", "503, store_down"),
        ("open", "each replica enforces the whole of it alone"),
    ],
)
async def test_explain_names_the_store_without_its_password_and_what_happens_without_it(
    tmp_path, choice, said
):
    file = tmp_path / "shared.yaml"
    file.write_text(
        "store: {url: 'rediss://ops:hunter2@cache/2', safe_for: 90s}\n"
        "upstreams: {a: {url: 'http://127.0.0.1:9', dialect: rest}}\n"
        f"routes: [{{name: web, path: /web, upstream: a, on_store_failure: {choice}}}]\n"
    )
    code, out, err = await ran("explain", str(file), "GET", "/web/x")
    assert (code, err) == (0, "")
    assert f"store      rediss://ops:***@cache:6379/2\n           lost for 90s: {said}\n" in out


async def test_explain_never_prints_a_credential():
    call = ["explain", str(CONFIG / "demo.yaml"), "GET", "/tools/search"]
    _, out, _ = await ran(*call, "-H", "authorization: Bearer sk-secret")
    assert "sk-secret" not in out


async def test_check_shows_what_a_preset_stands_for(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(
        "upstreams: {a: {preset: groq, timeouts: {idle: 20s}}}\nroutes: [{name: web, path: /, upstream: a}]\n"
    )
    code, out, err = await ran("check", str(file), "--show")
    assert (code, err) == (0, "")
    rows = out.splitlines()
    assert rows[:2] == ["upstreams:", "  a:  # preset: groq"]
    assert "    url: https://api.groq.com/openai" in rows
    assert "    timeouts: {connect: 5s, first_byte: 600s, idle: 20s}" in rows
    assert rows[-1] == f"{file}: valid, 1 route, 1 upstream"
    code, out, _ = await ran("check", str(CONFIG / "demo.yaml"), "--show")
    assert (code, out.splitlines()[0]) == (0, "no upstream has a preset")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["GET", "/nowhere"], "/openai/"),
        (["GET", "/tools/x", "-H", "x-deadline-ms: -1"], "x-deadline-ms"),
        (["GET", "/tools/x", "-H", "nonsense"], "name: value"),
    ],
)
async def test_explain_says_why_there_is_no_call_and_exits_2(arguments, says):
    code, out, err = await ran("explain", str(CONFIG / "demo.yaml"), *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve"],
        ["serve", "a.yaml", "--upstream", "http://x"],
        ["serve", "--upstream", "ftp://x"],
        ["serve", "a.yaml", "--preset", "openai"],
        ["serve", "--preset", "opnai"],
        ["serve", "--preset", "azure"],
    ],
)
async def test_serve_needs_a_file_or_an_upstream(arguments):
    code, _, err = await ran(*arguments)
    assert code == 2
    assert "Traceback" not in err


@pytest.mark.parametrize("key", ["listen", "admin.listen"])
async def test_a_port_in_use_is_named_with_its_key_and_a_remedy_and_exits_1(tmp_path, key):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ports = {"listen": "127.0.0.1:0", "admin.listen": "127.0.0.1:0", key: address}
        file = tmp_path / "proxy.yaml"
        file.write_text(f"listen: {ports['listen']}\nadmin: {{listen: '{ports['admin.listen']}'}}\n{GOOD}")
        code, _, err = await ran("serve", str(file))
    assert code == 1
    assert err.strip() == (
        f"cannot listen on {address} ({key}): another program listens there; stop it, or write another port"
    )


async def test_version_is_the_packages():
    from proxy import __version__

    status, said, errors = await ran("version")
    assert (status, errors) == (0, "")
    assert said in (f"{__version__} (pure Python)", f"{__version__} (compiled)")


async def test_serve_listens_where_the_file_says_and_tells_both_addresses(tmp_path):
    async with started("serve", str(written(tmp_path, GOOD))) as proxy:
        line = await proxy.until("started")
        assert not line["listen"].endswith(":0")
        assert line["listen"] != line["admin"]
