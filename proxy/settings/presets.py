"""`preset:` what is known of each provider, in the words of the YAML. `expansion.py` fills it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

PATIENT: Final[Mapping[str, object]] = {
    "timeouts": {"connect": "5s", "first_byte": "600s", "idle": "300s"},
    "breaker": {"slow_call": "300s"},
}
"""For a provider whose models think. The SDKs of OpenAI and Anthropic connect within 5 s and wait 600 s
(`DEFAULT_TIMEOUT`): the head of a plain answer comes when all of it is made. Codex waits 300 s between two
events of a stream (`stream_idle_timeout_ms`), in which a reasoning model may say nothing. So an answer that
begins after one minute is no sign of an overload, and one after five is."""

LOCAL: Final[Mapping[str, object]] = {
    "timeouts": {"connect": "2s", "first_byte": "600s", "idle": "120s"},
    "breaker": {"slow_call": "300s"},
}
"""For a server on this machine. Loopback connects at once or not at all; 2 s are for a listen queue that is
full. It queues by itself and may load a model first (Ollama gives that 5 minutes, `OLLAMA_LOAD_TIMEOUT`), so
the first byte has as long as the SDKs wait; then tokens come, and 120 s without one are a hang."""


@dataclass(frozen=True, slots=True)
class Preset:
    """One provider. `url` is such that its OpenAI dialect is spoken under `/v1/`, as with OpenAI itself, so
    that one can be another's fallback; "" where there is one for each customer, such as `url_example`.

    `credentials` are the headers that carry a key, as `credentials: env` sends them; none: it asks for none.
    """

    url: str
    dialect: str
    credentials: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, object] = field(default_factory=lambda: PATIENT)
    url_example: str = ""


def _bearer(variable: str) -> dict[str, str]:
    return {"authorization": f"Bearer ${{{variable}}}"}


PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        "openai": Preset("https://api.openai.com", "openai", _bearer("OPENAI_API_KEY")),
        # Its v1 API (from August 2025) takes no api-version; of the dated one each caller's SDK says its own.
        "azure": Preset(
            "",
            "openai",
            {"api-key": "${AZURE_OPENAI_API_KEY}"},
            url_example="https://NAME.openai.azure.com/openai",
        ),
        # Of anthropic-version there has been this one since 2023; every SDK of theirs sends it.
        "anthropic": Preset(
            "https://api.anthropic.com",
            "anthropic",
            {"x-api-key": "${ANTHROPIC_API_KEY}", "anthropic-version": "2023-06-01"},
        ),
        # Under /v1beta/openai/ it speaks OpenAI's dialect too: then dialect and credentials are stated.
        "gemini": Preset(
            "https://generativelanguage.googleapis.com", "gemini", {"x-goog-api-key": "${GEMINI_API_KEY}"}
        ),
        "groq": Preset("https://api.groq.com/openai", "openai", _bearer("GROQ_API_KEY")),
        "mistral": Preset("https://api.mistral.ai", "openai", _bearer("MISTRAL_API_KEY")),
        "openrouter": Preset("https://openrouter.ai/api", "openai", _bearer("OPENROUTER_API_KEY")),
        # It batches what comes (max_num_seqs) and queues the rest without end: how many are best is learnt.
        "vllm": Preset(
            "http://127.0.0.1:8000",
            "openai",
            _bearer("VLLM_API_KEY"),
            {**LOCAL, "concurrency": "adaptive"},
        ),
        # One at a time unless OLLAMA_NUM_PARALLEL says otherwise. Here those who wait stand in the order of
        # their priority, there (up to 512, OLLAMA_MAX_QUEUE) in the order of their coming.
        "ollama": Preset("http://127.0.0.1:11434", "openai", {}, {**LOCAL, "concurrency": 1}),
    }
)
