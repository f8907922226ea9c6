"""The rows of the table: every client, what runs it, and what is right for it.

`errors` names what it raises, by the kind of refusal. `point` is the one line that points it at the proxy.
`wrong` tells what is the client's own fault, by the column: what it does, and the file and line.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from proxy.core.verdict import Kind
from proxy.demo.calling import ToolCall

ROOT = Path(__file__).parents[2]
DRIVERS = Path(__file__).parent / "drivers"
ENVIRONMENTS = ROOT / "build" / "clients"


WEATHER_CALL = ToolCall("weather", {"city": "Paris"})


@dataclass(frozen=True)
class Client:
    """One row."""

    name: str
    driver: tuple[str, ...]
    dialect: str
    point: str
    errors: Mapping[Kind, str] = field(default_factory=dict)
    returns: bool = True
    environment: str = "own"
    wrong: Mapping[str, str] = field(default_factory=dict)
    can_be_impatient: bool = True
    """Can it be told not to come back by itself?"""
    calls: ToolCall = WEATHER_CALL
    """The tool that the model calls: of an agent one of its own."""
    ran: bytes = b""
    """What an agent's own tool says when it has run, as it stands in the next request."""

    env: Mapping[str, str] = field(default_factory=dict)

    def is_here(self) -> bool:
        """Is its environment installed?"""
        return self.interpreter.exists()

    @property
    def command(self) -> list[str | Path]:
        """What starts its driver."""
        file, *arguments = self.driver
        return [self.interpreter, DRIVERS / file, *arguments]

    @property
    def interpreter(self) -> Path:
        """Its environment's; of the suite's own where it is installed there."""
        if self.environment == "own":
            return Path(sys.executable)
        return ENVIRONMENTS / self.environment / "bin" / "python"


def errors(come_back: str, unavailable: str, not_again: str, stop: str) -> Mapping[Kind, str]:
    """What is raised at the four kinds of refusal."""
    return {
        Kind.COME_BACK: come_back,
        Kind.UNAVAILABLE: unavailable,
        Kind.NOT_AGAIN: not_again,
        Kind.STOP: stop,
    }


OPENAI = errors("RateLimitError", "InternalServerError", "RateLimitError", "BadRequestError")
ANTHROPIC = errors("RateLimitError", "ServiceUnavailableError", "RateLimitError", "BadRequestError")
PYDANTIC = errors(
    "ModelRateLimitError", "ModelUnavailableError", "ModelQuotaExceededError", "ModelQuotaExceededError"
)
REFUSED = (
    "rate limited",
    "queue full",
    "shed",
    "breaker open",
    "retry budget spent",
    "run budget spent",
    "draining",
)

OPENAI_URL = "http://127.0.0.1:8080/openai/v1"
ANTHROPIC_URL = "http://127.0.0.1:8080/anthropic"
GEMINI_URL = "http://127.0.0.1:8080/gemini"
MCP_URL = "http://127.0.0.1:8080/mcp"

CLIENTS = (
    Client(
        "openai (Python)",
        ("openai_python.py",),
        "openai",
        f'OpenAI(base_url="{OPENAI_URL}")',
        OPENAI,
    ),
    Client(
        "anthropic (Python)",
        ("anthropic_python.py",),
        "anthropic",
        f'Anthropic(base_url="{ANTHROPIC_URL}")',
        ANTHROPIC,
    ),
    Client(
        "litellm, openai",
        ("litellm_python.py",),
        "openai",
        f'completion("openai/gpt-5", api_base="{OPENAI_URL}", …)',
        ANTHROPIC,
        environment="python",
    ),
    Client(
        "litellm, anthropic",
        ("litellm_python.py",),
        "anthropic",
        f'completion("anthropic/claude-opus-4-5", api_base="{ANTHROPIC_URL}", …)',
        ANTHROPIC,
        returns=False,
        environment="python",
    ),
    Client(
        "litellm, anthropic, num_retries=2",
        ("litellm_python.py", "num_retries"),
        "anthropic",
        f'completion("anthropic/claude-opus-4-5", api_base="{ANTHROPIC_URL}", num_retries=2, …)',
        ANTHROPIC,
        environment="python",
        wrong=dict.fromkeys(
            REFUSED,
            "repeats every error at once, a stop too, and reads neither `Retry-After` nor `x-should-retry`:"
            " tenacity without a wait or a condition, litellm/main.py:4446 (1.83.0). Use the Router.",
        ),
    ),
    Client(
        "litellm Router",
        ("litellm_python.py", "router"),
        "openai",
        f'litellm_params: {{"model": "openai/gpt-5", "api_base": "{OPENAI_URL}"}}',
        ANTHROPIC,
        environment="python",
    ),
    Client(
        "langchain-openai",
        ("langchain_python.py", "openai"),
        "openai",
        f'ChatOpenAI(base_url="{OPENAI_URL}")',
        errors("OpenAIRateLimitError", "OpenAIAPIError", "OpenAIRateLimitError", "OpenAIInvalidRequestError"),
        environment="python",
    ),
    Client(
        "langchain-anthropic",
        ("langchain_python.py", "anthropic"),
        "anthropic",
        f'ChatAnthropic(base_url="{ANTHROPIC_URL}")',
        errors(
            "AnthropicRateLimitError",
            "AnthropicAPIError",
            "AnthropicRateLimitError",
            "AnthropicInvalidRequestError",
        ),
        environment="python",
    ),
    Client(
        "pydantic-ai, openai",
        ("pydantic_ai_python.py", "openai"),
        "openai",
        f'OpenAIChatModel("gpt-5", provider=OpenAIProvider(base_url="{OPENAI_URL}"))',
        PYDANTIC,
        environment="python",
    ),
    Client(
        "pydantic-ai, anthropic",
        ("pydantic_ai_python.py", "anthropic"),
        "anthropic",
        f'AnthropicModel("claude-opus-4-5", provider=AnthropicProvider(base_url="{ANTHROPIC_URL}"))',
        PYDANTIC,
        environment="python",
    ),
    Client(
        "openai-agents (Responses)",
        ("openai_agents_python.py",),
        "openai",
        f'set_default_openai_client(AsyncOpenAI(base_url="{OPENAI_URL}"))',
        OPENAI,
        environment="python",
    ),
    Client(
        "google-genai",
        ("google_genai_python.py",),
        "gemini",
        f'Client(http_options=HttpOptions(base_url="{GEMINI_URL}"))',
        errors("ClientError", "ServerError", "ClientError", "ClientError"),
        returns=False,
        environment="python",
    ),
    Client(
        "mcp 2 (Python)",
        ("mcp_python.py",),
        "mcp",
        f'Client("{MCP_URL}")',
        returns=False,
    ),
    Client(
        "mcp 1 (Python)",
        ("mcp_python.py",),
        "mcp",
        f'streamable_http_client("{MCP_URL}")',
        returns=False,
        environment="mcp1",
    ),
)
