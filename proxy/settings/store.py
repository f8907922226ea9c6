"""`store:` where counts are kept: `memory`, the URL of a Redis or Valkey, or a mapping with more about it.

Says all that a client needs to connect, and knows none. A URL may hold a password: no error repeats any
part of what was written, and `shown` masks it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from operator import attrgetter
from typing import Annotated, Final, Literal
from urllib.parse import quote, unquote

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from proxy.settings.environment import WrongValueError, shown
from proxy.settings.nearest import nearest
from proxy.settings.pem import Authority, CertificateFile, OwnKey, Verify
from proxy.settings.section import Section
from proxy.settings.units import DURATION, DurationOrZero, some_duration_s, written
from proxy.settings.words import text

Kind = Literal["memory", "redis", "cluster", "sentinel"]

_KINDS: Final[dict[str, Kind]] = {"": "redis", "+cluster": "cluster", "+sentinel": "sentinel"}
_SCHEMES: Final = {
    f"{name}{suffix}": (kind, tls)
    for name, tls in (("redis", False), ("rediss", True), ("valkey", False), ("valkeys", True))
    for suffix, kind in _KINDS.items()
}
_SUFFIXES: Final = {kind: suffix for suffix, kind in _KINDS.items()}
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379

LONGEST_TIMEOUT_S: Final = 2.0
URL: Final = r"^(redis|rediss|valkey|valkeys)(\+cluster|\+sentinel)?://\S+$"
NAMESPACE: Final = r"^[A-Za-z0-9_.-]{1,64}$"
EXAMPLE: Final = "redis://127.0.0.1:6379"

_HOST: Final = re.compile(r"[0-9A-Za-z._-]+\Z")
_SERVICE: Final = re.compile(r"[0-9A-Za-z._-]{1,128}\Z")  # as Redis checks it at SENTINEL MONITOR
_DATABASE: Final = re.compile(r"[0-9]{1,6}\Z")
_NOT_ENCODED: Final = re.compile(r"@|%(?![0-9A-Fa-f]{2})")

_ENCODE: Final = (
    "the user or the password holds / ? # @ or % as it is; write each in percent-encoding, such as %40 for @"
)


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """What a URL says. `hosts` are (host, port), an IPv6 address without brackets; of `sentinel` they are the
    sentinels, and `service` is the name under which they know the master. Of `memory` nothing else is set."""

    kind: Kind
    hosts: tuple[tuple[str, int], ...] = ()
    username: str = ""
    password: SecretStr | None = None
    database: int = 0
    service: str = ""
    tls: bool = False

    @property
    def shown(self) -> str:
        """The URL written out, with `***` for the password: fit for logs and errors."""
        if self.kind == "memory":
            return "memory"
        scheme = ("rediss" if self.tls else "redis") + _SUFFIXES[self.kind]
        login = f"{quote(self.username, safe='')}:***@" if self.password else ""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        service = f"/{self.service}" if self.service else ""
        database = "" if self.kind == "cluster" else f"/{self.database}"
        return f"{scheme}://{login}{hosts}{service}{database}"


MEMORY: Final = StoreUrl("memory")


def store_url(value: object) -> StoreUrl:
    """`redis://[USER]:PASSWORD@HOST:PORT/DB` and its kin → its parts. No error repeats it."""
    if isinstance(value, StoreUrl):
        return value
    if value == "memory":
        raise WrongValueError("memory has no URL; write `store: memory` in place of the mapping")
    scheme, found, rest = text(value).partition("://")
    if not found:
        raise WrongValueError(f"the URL of a Redis or Valkey is needed here; write such as {EXAMPLE}")
    kind, tls = _scheme(scheme)
    if any(not each.isprintable() or each.isspace() for each in rest):
        raise WrongValueError(
            "the URL holds a blank, a line break or a control character (a secret's last newline?); remove it"
        )
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    tail = rest[len(authority) :]
    if "@" in tail:
        raise WrongValueError(_ENCODE)
    if "?" in tail or "#" in tail:
        raise WrongValueError(
            "the URL holds a query or a fragment; write timeout, ca and the like beside url, in a mapping"
        )
    login, at, places = authority.rpartition("@")
    username, password = _login(login) if at else ("", None)
    service, database = _below(kind, tail[1:])
    return StoreUrl(kind, _hosts(kind, places), username, password, database, service, tls)


def _scheme(scheme: str) -> tuple[Kind, bool]:
    if scheme in _SCHEMES:
        return _SCHEMES[scheme]
    if scheme == "unix":
        raise WrongValueError(
            f"a store behind a Unix socket is not supported; write its host and port, such as {EXAMPLE}"
        )
    if guess := nearest(scheme, _SCHEMES):
        raise WrongValueError(f'the scheme is not known; did you mean "{guess}://"?')
    raise WrongValueError(
        "the scheme is not known; write redis:// or valkey://, rediss:// or valkeys:// with TLS, and "
        "+cluster or +sentinel before ://"
    )


def _login(login: str) -> tuple[str, SecretStr]:
    if _NOT_ENCODED.search(login):
        raise WrongValueError(_ENCODE)
    username, _, password = login.partition(":")
    if not password:
        raise WrongValueError(
            "the URL has no password before its @; write user:password@, or :password@ for the default user"
        )
    try:
        return unquote(username, errors="strict"), SecretStr(unquote(password, errors="strict"))
    except UnicodeDecodeError:
        raise WrongValueError(
            "the user or the password is not UTF-8 once it is decoded; write a % itself as %25"
        ) from None


def _hosts(kind: Kind, places: str) -> tuple[tuple[str, int], ...]:
    hosts = tuple(
        _host(place, _SENTINEL_PORT if kind == "sentinel" else _PORT) for place in places.split(",")
    )
    if kind == "redis" and len(hosts) > 1:
        raise WrongValueError("the URL names several hosts; write +cluster:// or +sentinel://, or one host")
    return hosts


def _host(place: str, default_port: int) -> tuple[str, int]:
    bracketed = place.startswith("[")
    host, closed, rest = place[1:].partition("]") if bracketed else (place.partition(":")[0], "", "")
    port = rest if bracketed else place[len(host) :]
    if not host:
        raise WrongValueError(f"the URL has no host, or an empty one in its list; write such as {EXAMPLE}")
    if bracketed:
        try:
            IPv6Address(host)
        except ValueError:
            closed = ""
        if not closed:
            raise WrongValueError("there is no such IPv6 address; write such as redis://[::1]:6379")
    elif not _HOST.match(host):
        raise WrongValueError(f"the URL's host cannot be read; write such as {EXAMPLE}")
    if not port:
        return host, default_port
    if not re.fullmatch(r":[0-9]{1,5}", port) or not 1 <= int(port[1:]) <= 65535:
        raise WrongValueError("there is no such port; write 1 to 65535")
    return host, int(port[1:])


def _below(kind: Kind, path: str) -> tuple[str, int]:
    """What follows the hosts: the service of the sentinels, and the number of the database."""
    service, database = "", path
    if kind == "cluster" and path:
        raise WrongValueError("a cluster has one database only; remove what follows the hosts")
    if kind == "sentinel":
        service, _, database = path.partition("/")
        if not _SERVICE.match(service):
            raise WrongValueError(
                "the URL does not name the service that the sentinels watch; write it after the hosts, such "
                "as redis+sentinel://10.0.0.7:26379/mymaster"
            )
    if database and not _DATABASE.match(database):
        raise WrongValueError("the URL's database is no number; write a whole number from 0, such as /0")
    return service, int(database or 0)


def _store(value: object) -> object:
    """The mapping, also where a word or a URL stands for it: such a fault is the store's, not its url's."""
    if isinstance(value, dict | Store):
        return value
    if value == "memory":
        return {"url": MEMORY}
    if not isinstance(value, str):
        raise WrongValueError(
            f"a word, a URL or a mapping is needed here; write memory, or such as {EXAMPLE}"
        )
    if "://" not in value:
        remedy = 'did you mean "memory"?' if nearest(value, ["memory"]) else f"write such as {EXAMPLE}"
        raise WrongValueError(f"is neither memory nor a URL; {remedy}")
    return {"url": store_url(value)}


def _namespace(value: object) -> str:
    if re.fullmatch(NAMESPACE, word := text(value)):
        return word
    raise WrongValueError(
        f"{shown(value)} cannot be a namespace; write 1 to 64 letters, digits, dots, dashes and underscores"
    )


def _timeout_s(value: object) -> float:
    seconds = some_duration_s(value)
    if seconds > LONGEST_TIMEOUT_S:
        raise WrongValueError(f"{shown(value)} is longer than a store may take to answer; write at most 2s")
    return seconds


class Store(Section):
    """A store that several replicas share, or `memory`."""

    url: Annotated[
        StoreUrl,
        PlainValidator(store_url),
        PlainSerializer(attrgetter("shown")),
        WithJsonSchema({"type": "string", "pattern": URL}),
    ] = Field(
        description=(
            "redis://USER:PASSWORD@HOST:PORT/DB, rediss:// with TLS, valkey:// and valkeys:// alike; "
            "redis+cluster://HOST:PORT,HOST:PORT; redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB. USER, DB "
            "and PORT (6379, of sentinels 26379) may be left out, and what stands before @ too."
        ),
        examples=[EXAMPLE],
    )
    namespace: Annotated[
        str, BeforeValidator(_namespace), WithJsonSchema({"type": "string", "pattern": NAMESPACE})
    ] = Field(
        default="backpressure",
        description="Begins every key: replicas with one namespace share their counts, others do not.",
    )
    timeout_s: Annotated[float, BeforeValidator(_timeout_s), written(DURATION, "50ms")] = Field(
        default="50ms",
        alias="timeout",
        validate_default=True,
        description="For each connection and each command, at most 2s; beyond it the store counts as lost.",
    )
    safe_for_s: DurationOrZero = Field(
        default="60s",
        alias="safe_for",
        validate_default=True,
        description=(
            "How long, once the store is lost, each replica enforces its safe share: everything divided by "
            "the replicas last seen. Then each route's on_store_failure holds. 0s: at once."
        ),
    )
    ca: Authority = None
    cert: CertificateFile | None = Field(
        default=None,
        description="PEM file of our own certificate and its chain, for a store that asks (mutual TLS).",
        examples=["client.pem"],
    )
    key: OwnKey = None
    verify: Verify = True

    @property
    def kind(self) -> Kind:
        """`memory`, one `redis`, a `cluster`, or `sentinel`s that know which is the master."""
        return self.url.kind

    @property
    def hosts(self) -> tuple[tuple[str, int], ...]:
        """(host, port) of the server, of nodes of the cluster, or of the sentinels; none of `memory`."""
        return self.url.hosts

    @property
    def username(self) -> str:
        """ "" stands for the default user."""
        return self.url.username

    @property
    def password(self) -> SecretStr | None:
        """None where the store asks for none."""
        return self.url.password

    @property
    def database(self) -> int:
        """The number that is selected; 0 of a cluster."""
        return self.url.database

    @property
    def service(self) -> str:
        """The master's name, which sentinels are asked for; else ""."""
        return self.url.service

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.url.tls

    @property
    def shared(self) -> bool:
        """Whether other processes see the same counts."""
        return self.url.kind != "memory"

    @property
    def shown(self) -> str:
        """The URL with its password masked, or `memory`."""
        return self.url.shown


class OrUrl:
    """Shows the word and the bare URL in the JSON Schema beside the mapping."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """`memory`, a URL, or the section."""
        return {"anyOf": [{"const": "memory"}, {"type": "string", "pattern": URL}, handler(schema)]}


WhereCounted = Annotated[Store, BeforeValidator(_store), OrUrl()]
