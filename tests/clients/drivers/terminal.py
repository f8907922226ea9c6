"""The agents that run in a terminal: `terminal.py codex|codex-before|opencode|claude`, one process an ask.

Each gets a home of its own, is told by its own settings to look nowhere but at the proxy, and prints events
as JSON, of which the answer and the error are taken. AGENTS is the folder that npm has installed into.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from driving import KEY, MODEL, PROMPT, Ask, said, serve

MODULES = Path(os.environ["AGENTS"]) / "node_modules"
LONGEST_S = 120
AT_ONCE = threading.Semaphore(2)
"""They are processes of hundreds of megabytes that compute for seconds before they ask."""

Command = tuple[list[str], dict[str, str]]


def codex(asked: Ask, home: Path) -> Command:
    """Its provider is a custom one; a file of the home says so."""
    headers = ", ".join(f'"{name}" = "{value}"' for name, value in asked.headers.items())
    (home / ".codex").mkdir()
    (home / ".codex" / "config.toml").write_text(
        f'model = "{MODEL}"\nmodel_provider = "backpressure"\ncheck_for_update_on_startup = false\n'
        "[analytics]\nenabled = false\n"
        '[model_providers.backpressure]\nname = "backpressure"\nwire_api = "responses"\n'
        f'base_url = "{asked.base}/v1"\nenv_key = "BACKPRESSURE_KEY"\nhttp_headers = {{{headers}}}\n'
        + ("" if asked.patient else "request_max_retries = 0\nstream_max_retries = 0\n")
    )
    flags = ["--json", "--skip-git-repo-check", "--sandbox", "danger-full-access"]
    return ["codex", "exec", *flags, PROMPT], {"BACKPRESSURE_KEY": KEY}


def codex_said(events: list[dict[str, Any]]) -> dict[str, Any]:
    for event in events:
        if event["type"] == "turn.failed":
            return {"error": "turn.failed", "status": None, "text": event["error"]["message"]}
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    return said(next((item["text"] for item in items if item["type"] == "agent_message"), None))


def claude(asked: Ask, home: Path) -> Command:
    """All of it stands in the environment."""
    env = {
        "ANTHROPIC_BASE_URL": asked.base,
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_CUSTOM_HEADERS": "\n".join(f"{name}: {value}" for name, value in asked.headers.items()),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
    }
    if not asked.patient:
        env["CLAUDE_CODE_MAX_RETRIES"] = "0"
    flags = ["--model", MODEL, "--output-format", "stream-json", "--verbose", "--allowedTools", "Bash"]
    return ["claude", "-p", PROMPT, *flags], env


def claude_said(events: list[dict[str, Any]]) -> dict[str, Any]:
    (result,) = [event for event in events if event["type"] == "result"]
    if result["is_error"]:
        return {"error": "is_error", "status": result["api_error_status"], "text": result["result"]}
    return said(result["result"])


def opencode(asked: Ask, home: Path) -> Command:
    """Its provider is a custom one; a file where it works says so. With a title it asks for none."""
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "backpressure",
        "options": {"baseURL": f"{asked.base}/v1", "apiKey": KEY, "headers": asked.headers},
        "models": {MODEL: {"tool_call": True, "limit": {"context": 100_000, "output": 64}}},
    }
    (home / "work" / "opencode.json").write_text(
        json.dumps(
            {
                "autoupdate": False,
                "share": "disabled",
                "model": f"backpressure/{MODEL}",
                "small_model": f"backpressure/{MODEL}",
                "enabled_providers": ["backpressure"],
                "permission": "allow",
                "provider": {"backpressure": provider},
            }
        )
    )
    env = dict.fromkeys(
        (
            "OPENCODE_DISABLE_AUTOUPDATE",
            "OPENCODE_DISABLE_MODELS_FETCH",
            "OPENCODE_DISABLE_LSP_DOWNLOAD",
            "OPENCODE_DISABLE_DEFAULT_PLUGINS",
        ),
        "1",
    )
    return ["opencode", "run", "--pure", "--format", "json", "--title", "asked", "--auto", PROMPT], env


def opencode_said(events: list[dict[str, Any]]) -> dict[str, Any]:
    for event in events:
        if event["type"] == "error":
            error = event["error"]
            return {"error": error["name"], "status": None, "text": json.dumps(error.get("data"))}
    return said("".join(event["part"]["text"] for event in events if event["type"] == "text"))


Begin = Callable[[Ask, Path], Command]
Read = Callable[[list[dict[str, Any]]], dict[str, Any]]
AGENTS: dict[str, tuple[str, Begin, Read]] = {
    "codex": ("@openai/codex", codex, codex_said),
    "codex-before": ("codex-before", codex, codex_said),
    "claude": ("@anthropic-ai/claude-code", claude, claude_said),
    "opencode": ("opencode-ai", opencode, opencode_said),
}
NAME, BEGIN, READ = AGENTS[sys.argv[1]]
PACKAGE = json.loads((MODULES / NAME / "package.json").read_text())


def ask(asked: Ask) -> dict[str, Any]:
    with AT_ONCE, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        work = Path(home) / "work"
        work.mkdir()
        (program, *arguments), env = BEGIN(asked, Path(home))
        ran = subprocess.run(
            [MODULES / NAME / PACKAGE["bin"][program], *arguments],
            cwd=work,
            env={"PATH": os.environ["PATH"], "HOME": home, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    events = [json.loads(line) for line in _lines(ran.stdout)]
    try:
        return READ(events)
    except (KeyError, ValueError) as error:
        raise RuntimeError(f"{error!r} in {ran.stdout[-2000:]} {ran.stderr[-2000:]}") from error


def _lines(text: str) -> Iterable[str]:
    return (line for line in text.splitlines() if line.startswith("{"))


serve(f"{sys.argv[1]} {PACKAGE['version']}", ask)
