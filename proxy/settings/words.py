"""The other values an operator writes: names, header names, whole numbers, addresses, URLs, paths, secrets.

Each parser takes what the YAML holds and raises WrongValueError that never repeat a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, SecretStr, WithJsonSchema

from proxy.settings.environment import Filled, WrongValueError, shown
from proxy.settings.nearest import advice

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
TOOL: Final = r"^[!-~]{1,128}$"
HEADER: Final = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$"  # RFC 9110 §5.6.2, token
ADDRESS: Final = r"^(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+):[0-9]{1,5}$"
URL: Final = r"^https?://[!-~]+$"
PATH: Final = r"^(/[A-Za-z0-9._~-]+)*(/\{tool\})?/?$"
MOST: Final = 1_000_000
TOOL_SEGMENT: Final = "{tool}"

FRAMING: Final = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers that the relay itself writes; a credential cannot be one of them."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0: the system chooses."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        """As it is written in the YAML."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def text(value: object) -> str:
    """Text, as it is; no longer marked as coming from the environment."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool | int | float):
        raise WrongValueError("text is needed here, and YAML reads this as something else; put it in quotes")
    raise WrongValueError("text is needed here, not a list or a mapping")


def whole(least: int, most: int, example: int) -> Callable[[object], int]:
    """A parser of whole numbers from `least` to `most`; digits in text count, as `${NAME}` gives them."""

    def parse(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise WrongValueError(f"a whole number is needed here; write such as {example}")
        if not least <= value <= most:
            raise WrongValueError(f"the number is out of range; write {least} to {most}")
        return value

    return parse


def ratio(value: object) -> float:
    """A share from 0 to 1."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,18})?", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongValueError("a share is needed here; write 0 to 1, such as 0.5")
    if not 0 <= value <= 1:
        raise WrongValueError("the share is out of range; write 0 to 1, such as 0.5")
    return float(value)


def some_ratio(value: object) -> float:
    """A share above 0, up to 1."""
    share = ratio(value)
    if share <= 0:
        raise WrongValueError("a share of 0 would always be reached; write more than 0, up to 1")
    return share


def weight(value: object) -> float:
    """A relative share between callers."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.001 <= value <= 1_000_000:
        raise WrongValueError("a weight is needed here; write a number above 0, such as 1 or 2.5")
    return float(value)


def switch(value: object) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Filled) and value in {"true", "false"}:
        return value == "true"
    raise WrongValueError("true or false is needed here")


def name(value: object) -> str:
    """A name of the operator's own: it appears in keys, metrics and headers."""
    if re.fullmatch(NAME, word := text(value)):
        return word
    raise WrongValueError(
        f"{shown(value)} cannot be a name; write up to 64 letters, digits, dots, dashes and underscores"
    )


def tool_name(value: object) -> str:
    """A tool as MCP or the path names it, or `*`."""
    if re.fullmatch(TOOL, word := text(value)):
        return word
    raise WrongValueError(f"{shown(value)} cannot be a tool; write up to 128 ASCII characters without blanks")


def header_name(value: object) -> str:
    """A header's name, in lower case as the listener gives it."""
    if re.fullmatch(HEADER, word := text(value)):
        return word.lower()
    raise WrongValueError(f"{shown(value)} cannot be a header's name; write such as x-caller-id")


def credential_name(value: object) -> str:
    """A header that may carry a credential."""
    if (header := header_name(value)) in FRAMING:
        raise WrongValueError(f"{shown(value)} is written by the proxy itself; write such as authorization")
    return header


def secret(value: object) -> str:
    """A value that may be sent as a header and is never printed."""
    hidden = text(value)
    if not hidden.strip():
        raise WrongValueError("is empty; write a value, or remove the key")
    if re.search(r"[\x00-\x1f\x7f]", hidden):
        raise WrongValueError("holds a line break or control character (a secret's last newline?); remove it")
    if not hidden.isascii() or hidden != hidden.strip():
        raise WrongValueError(
            "holds blanks at its ends or characters beyond ASCII; a header cannot carry them"
        )
    return str(hidden)


def caller_key(value: object) -> str:
    """What a caller sends to be known by, without the scheme of `authorization`."""
    key = secret(value)
    if key.lower().startswith("bearer "):
        raise WrongValueError("begins with the scheme Bearer; write what follows it")
    return key


def address(value: object) -> Address:
    """`HOST:PORT` or `[IPV6]:PORT`."""
    if not isinstance(value, str) or not re.fullmatch(ADDRESS, value):
        raise WrongValueError("a host and a port are needed here; write such as 127.0.0.1:8080 or [::1]:8080")
    host, _, port = str(value).rpartition(":")
    if int(port) > 65535:
        raise WrongValueError("there is no such port; write 1 to 65535, or 0 to let the system choose")
    if host.startswith("["):
        host = host[1:-1]
        try:
            ip_address(host)
        except ValueError:
            raise WrongValueError("there is no such IPv6 address; write such as [::1]:8080") from None
    return Address(host, int(port))


def url(value: object) -> str:
    """An upstream's base URL, without a slash at its end. No error repeats it: it may hold a secret."""
    base = str(text(value))
    if not re.fullmatch(URL, base):
        raise WrongValueError(
            "a URL with http:// or https:// is needed here; write such as https://api.openai.com"
        )
    try:
        parts = urlsplit(base)
        port = parts.port
    except ValueError:
        raise WrongValueError(
            "the URL's host or port cannot be read; write such as http://10.0.0.7:9000"
        ) from None
    if "@" in parts.netloc:
        raise WrongValueError("the URL holds credentials; write them under credentials: {authorization: ...}")
    if "?" in base or "#" in base:
        raise WrongValueError(
            "the URL holds a query or a fragment; write the scheme, host and base path only"
        )
    if not parts.hostname or port == 0:
        raise WrongValueError("the URL has no host or no port to call; write such as http://10.0.0.7:9000")
    if "\\" in base or any(step in {".", ".."} for step in parts.path.split("/")):
        raise WrongValueError("the URL's path holds a dot segment or a backslash; write the plain path")
    return base.rstrip("/")


def path(value: object) -> str:
    """A route's prefix, without a slash at its end (`/` stays). The last segment may be `{tool}`."""
    prefix = str(text(value))
    if not prefix.startswith("/"):
        raise WrongValueError(f"{shown(value)} must begin with a slash; write such as /openai/")
    if not re.fullmatch(PATH, prefix) or any(step in {".", ".."} for step in prefix.split("/")):
        raise WrongValueError(
            f"{shown(value)} cannot be a path; write segments of letters, digits and . _ ~ - such as "
            "/openai/; {tool} may be the last of them"
        )
    return prefix.rstrip("/") or "/"


def one_of(
    *known: str, later: tuple[str, ...] = (), said: Mapping[object, str] | None = None
) -> Callable[[object], str]:
    """A parser of one word out of a closed list; `later` holds the words of a later release.

    `said` are words that YAML reads as another thing: a bare `on` is true.
    """

    def parse(value: object) -> str:
        listed = " or ".join(known)
        if said is not None and isinstance(value, bool):
            return said[value]
        if isinstance(value, str) and value in known:
            return str(value)
        if value in later:
            raise WrongValueError(f"{shown(value)} is not built yet in this release; write {listed}")
        if not isinstance(value, str):
            raise WrongValueError(f"a word is needed here; write {listed}")
        raise WrongValueError(f"{shown(value)} is not known; {advice(value, known)}")

    return parse


def stop_status(value: object) -> int:
    """400 or 429."""
    if isinstance(value, int | str) and value in {400, 429, "400", "429"}:
        return int(value)
    raise WrongValueError("the status of a final refusal is 400 or 429; write one of them")


Whole = Annotated[
    int,
    BeforeValidator(whole(1, MOST, 8)),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MOST}),
]
WholeOrZero = Annotated[
    int,
    BeforeValidator(whole(0, MOST, 200)),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MOST}),
]
StopStatus = Annotated[int, BeforeValidator(stop_status), WithJsonSchema({"enum": [400, 429]})]
Ratio = Annotated[
    float, BeforeValidator(ratio), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})
]
SomeRatio = Annotated[
    float,
    BeforeValidator(some_ratio),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
]
Weight = Annotated[float, BeforeValidator(weight), WithJsonSchema({"type": "number", "exclusiveMinimum": 0})]
Switch = Annotated[bool, BeforeValidator(switch)]
Name = Annotated[str, BeforeValidator(name), WithJsonSchema({"type": "string", "pattern": NAME})]
ToolName = Annotated[str, BeforeValidator(tool_name), WithJsonSchema({"type": "string", "pattern": TOOL})]
HeaderName = Annotated[
    str, BeforeValidator(header_name), WithJsonSchema({"type": "string", "pattern": HEADER})
]
CredentialName = Annotated[
    str, BeforeValidator(credential_name), WithJsonSchema({"type": "string", "pattern": HEADER})
]
Text = Annotated[str, BeforeValidator(text)]
Secret = Annotated[SecretStr, BeforeValidator(secret), WithJsonSchema({"type": "string", "minLength": 1})]
CallerKey = Annotated[
    SecretStr, BeforeValidator(caller_key), WithJsonSchema({"type": "string", "minLength": 1})
]
Listen = Annotated[
    Address,
    PlainValidator(address),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": ADDRESS}),
]
Url = Annotated[str, BeforeValidator(url), WithJsonSchema({"type": "string", "pattern": URL})]
RoutePath = Annotated[str, BeforeValidator(path), WithJsonSchema({"type": "string", "pattern": PATH})]
