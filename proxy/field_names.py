"""The names of header fields that nearly every call and answer carries: each of them one object.

A name comes from the parser as fresh bytes, in the spelling of whoever sent it. Exchanged at once for the one
object of that name, it is neither put in lower case nor hashed again wherever it is looked up after that.
"""

from __future__ import annotations

from typing import Final

COMMON: Final = frozenset(
    b"accept accept-charset accept-encoding accept-language accept-ranges access-control-allow-origin "
    b"access-control-expose-headers age allow alt-svc anthropic-beta anthropic-organization-id "
    b"anthropic-version api-key authorization cache-control cf-cache-status cf-ray connection "
    b"content-disposition content-encoding content-language content-length content-type cookie date dnt "
    b"etag expect expires host if-match if-modified-since if-none-match if-range if-unmodified-since "
    b"keep-alive last-modified location mcp-protocol-version mcp-session-id openai-beta "
    b"openai-organization openai-processing-ms openai-project openai-version origin originator pragma prefer "
    b"priority range referer request-id retry-after retry-after-ms server session-id set-cookie "
    b"strict-transport-security te thread-id "
    b"traceparent tracestate trailer transfer-encoding upgrade user-agent vary via www-authenticate "
    b"x-accel-buffering x-api-key x-backpressure-limit x-backpressure-reason x-backpressure-scope "
    b"x-caller-id x-claude-code-agent-id x-claude-code-parent-agent-id x-claude-code-request-class "
    b"x-claude-code-session-id x-content-type-options x-deadline-ms x-goog-api-key x-priority "
    b"x-ratelimit-limit-requests x-ratelimit-limit-tokens x-ratelimit-remaining-requests "
    b"x-ratelimit-remaining-tokens x-ratelimit-reset-requests x-ratelimit-reset-tokens x-request-id "
    b"x-run-id x-session-affinity x-session-id x-should-retry x-stainless-arch x-stainless-async "
    b"x-stainless-lang x-stainless-os x-stainless-package-version x-stainless-read-timeout "
    b"x-stainless-retry-count x-stainless-runtime x-stainless-runtime-version x-stainless-timeout".split()
)
"""In lower case, as they are kept and sent. All are tokens (RFC 9110 §5.6.2) and need no second look."""

_ONE: Final = {spelt: name for name in COMMON for spelt in (name, name.title())}

_BEGUN: Final = {name: b"\r\n%b: " % name for name in COMMON}


def in_lower_case(name: bytes) -> bytes:
    """The name in lower case; of a common one always the same object."""
    known = _ONE.get(name)
    return name.lower() if known is None else known


def line_begun(name: bytes) -> bytes:
    """What stands before the value: the end of the line above, the name, a colon."""
    begun = _BEGUN.get(name)
    return b"\r\n%b: " % name if begun is None else begun
