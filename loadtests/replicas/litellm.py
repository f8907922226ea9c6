"""LiteLLM's proxy as a replica: several instances with one set of limits in a Redis.

No database is needed: a `custom_auth` hook answers for each call with one key and its limits, and the proxy's
limiter of keys (`parallel_request_limiter_v3`) counts them in the Redis of `coordination_redis`, the setting
for what several instances share. That is set-up `key`. In `windows` it counts in windows of WINDOW_S, of all
keys, instead of minutes, and the limit is stated for one. `deployment` is the router's: a deployment's `rpm`
with the check `enforce_model_rate_limits`; it has no cap over all instances.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from loadtests.envoy import PEERS
from loadtests.replicas.plans import Yaml
from loadtests.replicas.site import Program, Redis

KEY: Final = "shared"
SETUPS: Final = ("key", "windows", "deployment")
WINDOW_S: Final = 10
STARTS_WITHIN_S: Final = 90.0
"""It imports for ten seconds, on an idle core."""
HOOK: Final = "shared_key"
LEFT_OUT: Final = (
    "left out: litellm, for there is none. Have it on PATH, say --litellm FILE, or\n"
    "  python3 -m venv build/peers/litellm && build/peers/litellm/bin/pip install 'litellm[proxy]'"
)
# It asks the internet for prices and news else.
ENVIRONMENT: Final = (
    "LITELLM_LOCAL_MODEL_COST_MAP=True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS=True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS=True",
    "LITELLM_LOCAL_BLOG_POSTS=True",
    "LITELLM_LOCAL_POLICY_TEMPLATES=True",
    "DISABLE_ADMIN_UI=True",
)


def executable(asked: Path | None) -> Path | None:
    """The one asked for, else that of build/peers/litellm, else that of PATH; None when there is none."""
    own = PEERS / "litellm" / "bin" / "litellm"
    found = shutil.which("litellm")
    places = [asked] if asked else [own, *([Path(found)] if found else [])]
    return next((place.absolute() for place in places if place.is_file()), None)


def version(litellm: Path) -> str:
    """Its own word, such as 1.106.2."""
    said = subprocess.run([litellm, "--version"], check=False, capture_output=True, text=True)
    found = re.search(r"\d+\.\d+\.\d+\S*", said.stdout + said.stderr)
    return found[0] if found else "of unknown version"


def program(litellm: Path, *, rpm: int | None = None, most: int | None = None, window_s: int = 60) -> Program:
    """One process each. The one key has `rpm` calls in a window, and `most` at once."""

    def command(config: Path, port: int) -> list[str]:
        listening = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
        window = f"LITELLM_RATE_LIMIT_WINDOW_SIZE={window_s}"
        return ["env", *ENVIRONMENT, window, str(litellm), "--config", str(config), *listening]

    return Program(
        command,
        lambda port, _control: f"http://127.0.0.1:{port}/health/readiness",
        STARTS_WITHIN_S,
        {f"{HOOK}.py": hook(rpm=rpm, most=most)},
    )


def hook(*, rpm: int | None, most: int | None) -> str:
    """A `custom_auth` module: whoever calls has one key, whose limits are these."""
    return f"""\
from litellm.proxy._types import UserAPIKeyAuth


async def shared(request, api_key):
    return UserAPIKeyAuth(api_key="{KEY}", rpm_limit={rpm}, max_parallel_requests={most})
"""


def yaml(*, deployment_rpm: int | None = None) -> Yaml:
    """A maker of configurations: one model, no retries, one Redis for the limiter of keys and for the router.

    With `deployment_rpm` the router enforces it. Headers go on to the upstream, whose ledger knows a call by
    its `x-call-id`. Without a master key it starts only when told that this is meant: it is on loopback.
    """
    limit = "" if deployment_rpm is None else f"\n      rpm: {deployment_rpm}"
    check = "" if deployment_rpm is None else "\n  optional_pre_call_checks: [enforce_model_rate_limits]"

    def made(_port: int, _control: int, url: str, store: str) -> str:
        host, _, port = store.rpartition("/")[2].partition(":")
        return f"""\
model_list:
  - model_name: demo-model
    litellm_params:
      model: openai/demo-model
      api_base: {url}/v1
      api_key: measured
      max_retries: 0{limit}
router_settings:
  num_retries: 0
  redis_host: {host}
  redis_port: {port}{check}
litellm_settings:
  num_retries: 0
  telemetry: false
general_settings:
  coordination_redis: {{host: {host}, port: {port}}}
  custom_auth: {HOOK}.shared
  forward_client_headers_to_llm_api: true
  dangerously_permit_weak_or_unset_master_key: true
"""

    return made


def held(store: Redis) -> int:
    """How many slots of the key's cap are taken, by Redis' word."""
    return int(store.command("ZCARD", f"{{api_key:{KEY}}}:max_parallel_requests"))
