"""The rows of the clients that are installed from npm: the SDKs, and the agents that run in a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from proxy.demo.calling import ToolCall
from tests.clients.rows import (
    ANTHROPIC,
    ANTHROPIC_URL,
    DRIVERS,
    MCP_URL,
    OPENAI,
    OPENAI_URL,
    ROOT,
    Client,
    errors,
)

MODULES = ROOT / "build" / "agents"


@dataclass(frozen=True)
class NodeClient(Client):
    """One row that node runs."""

    env: Mapping[str, str] = field(default_factory=lambda: {"AGENTS": str(MODULES)})

    def is_here(self) -> bool:
        """Are node and the packages installed?"""
        return shutil.which("node") is not None and (MODULES / ".installed").exists()

    @property
    def command(self) -> list[str | Path]:
        """What starts its driver."""
        file, *arguments = self.driver
        return [shutil.which("node") or "node", DRIVERS / file, *arguments]


@dataclass(frozen=True)
class AgentClient(NodeClient):
    """One row that is a program of its own, started by a driver in Python."""

    @property
    def command(self) -> list[str | Path]:
        """What starts its driver."""
        file, *arguments = self.driver
        return [sys.executable, DRIVERS / file, *arguments]


COMMAND, RAN = "echo sunny-$((40 + 2))", b"sunny-42"

VERCEL = errors("APICallError", "APICallError", "APICallError", "APICallError")


def _codex(name: str, package: str) -> AgentClient:
    """One release of it."""
    return AgentClient(
        name,
        ("terminal.py", package),
        "openai",
        f'[model_providers.backpressure] base_url = "{OPENAI_URL}", in ~/.codex/config.toml',
        errors(*["turn.failed"] * 4),
        calls=ToolCall("exec_command", {"cmd": COMMAND}),
        ran=RAN,
    )


AGENTS: tuple[Client, ...] = (
    NodeClient(
        "openai (JavaScript)",
        ("openai_node.cjs",),
        "openai",
        f'new OpenAI({{ baseURL: "{OPENAI_URL}" }})',
        OPENAI,
    ),
    NodeClient(
        "anthropic (JavaScript)",
        ("anthropic_node.cjs",),
        "anthropic",
        f'new Anthropic({{ baseURL: "{ANTHROPIC_URL}" }})',
        ANTHROPIC,
    ),
    NodeClient(
        "Vercel AI SDK, openai (Responses)",
        ("vercel_node.cjs", "openai"),
        "openai",
        f'createOpenAI({{ baseURL: "{OPENAI_URL}" }})',
        VERCEL,
    ),
    NodeClient(
        "Vercel AI SDK, anthropic",
        ("vercel_node.cjs", "anthropic"),
        "anthropic",
        f'createAnthropic({{ baseURL: "{ANTHROPIC_URL}/v1" }})',
        VERCEL,
    ),
    _codex("Codex CLI", "codex"),
    _codex("Codex CLI (older)", "codex-before"),
    AgentClient(
        "OpenCode",
        ("terminal.py", "opencode"),
        "openai",
        f'"provider": {{"openai": {{"options": {{"baseURL": "{OPENAI_URL}"}}}}}}, in opencode.json',
        errors(*["APIError"] * 4),
        calls=ToolCall("bash", {"command": COMMAND, "description": "weather"}),
        ran=RAN,
        can_be_impatient=False,
    ),
    AgentClient(
        "Claude Code",
        ("terminal.py", "claude"),
        "anthropic",
        f"ANTHROPIC_BASE_URL={ANTHROPIC_URL}",
        errors(*["is_error"] * 4),
        calls=ToolCall("Bash", {"command": COMMAND, "description": "weather"}),
        ran=RAN,
    ),
    NodeClient(
        "mcp (TypeScript)",
        ("mcp_node.cjs",),
        "mcp",
        f'new StreamableHTTPClientTransport(new URL("{MCP_URL}"))',
        returns=False,
    ),
)
