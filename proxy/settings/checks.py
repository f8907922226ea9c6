"""What no single key can tell: references between keys, duplicates, and contradictions.

Works on what is written, not on the validated settings, so that these faults are told beside those of the
schema, in one go. What has the wrong shape is passed over here: the schema reports it.
"""

from __future__ import annotations

from collections.abc import Iterator

from proxy.settings import words
from proxy.settings.checks_of_allowances import allowance_faults
from proxy.settings.checks_of_identity import identity_faults
from proxy.settings.checks_of_money import money_faults
from proxy.settings.checks_of_routes import route_faults
from proxy.settings.concurrency import Adaptive
from proxy.settings.document import Document
from proxy.settings.environment import WrongValueError, shown
from proxy.settings.nearest import advice
from proxy.settings.problems import Path
from proxy.settings.store import store_url
from proxy.settings.written import classes_of, items, mapping, repeated

Fault = tuple[Path, str]


def note_contradictions(document: Document) -> None:
    """Add to the document's problems what its parts say against each other."""
    written = document.value
    for path, message in (
        *_admin(written),
        *_store(mapping(written.get("store"))),
        *_priorities(written),
        *_callers(document),
        *identity_faults(written),
        *_upstreams(written),
        *route_faults(document),
        *allowance_faults(document),
        *money_faults(document),
    ):
        document.fault(path, message)


def _admin(written: dict[str, object]) -> Iterator[Fault]:
    admin = mapping(written.get("admin"))
    public = _address(admin.get("listen", "127.0.0.1:8081"))
    data = _address(written.get("listen", "127.0.0.1:8080"))
    if public and not public.is_loopback and "token" not in admin:
        yield (
            ("admin", "listen"),
            "is open beyond this machine without a token; write admin.token, or listen on 127.0.0.1",
        )
    if public and public == data and data.port:
        where: Path = ("admin", "listen") if "listen" in admin else ("listen",)
        yield where, "the data plane and the control plane share one address; write another port"


def _address(value: object) -> words.Address | None:
    try:
        return words.address(value)
    except WrongValueError:
        return None


def _priorities(written: dict[str, object]) -> Iterator[Fault]:
    classes = classes_of(written)
    priority = mapping(written.get("priority"))
    for at, _ in repeated(classes):
        yield ("priority", "classes", at), "stands in the list twice; keep one of the two"
    callers = mapping(written.get("callers"))
    stated: list[tuple[Path, object]] = [
        (("callers", "default", "max_priority"), mapping(callers.get("default")).get("max_priority"))
    ]
    stated += [
        (("callers", "known", at, "max_priority"), mapping(each).get("max_priority"))
        for at, each in enumerate(items(callers.get("known")))
    ]
    stated.append((("priority", "default"), priority.get("default", "normal")))
    for path, word in stated:
        if isinstance(word, str) and classes and word not in classes:
            yield path, f"{shown(word)} is not one of priority.classes; {advice(word, classes)}"


def _callers(document: Document) -> Iterator[Fault]:
    known = items(mapping(document.value.get("callers")).get("known"))
    for what in ("name", "key"):
        for at, first in repeated([mapping(each).get(what) for each in known]):
            line = document.line(("callers", "known", first, what))
            yield (
                ("callers", "known", at, what),
                f"the same {what} as in line {line}; give each caller a {what} of its own",
            )


def _upstreams(written: dict[str, object]) -> Iterator[Fault]:
    for name, each in mapping(written.get("upstreams")).items():
        upstream = mapping(each)
        credentials = [header.lower() for header in mapping(upstream.get("credentials"))]
        if len(set(credentials)) < len(credentials):
            yield ("upstreams", name, "credentials"), "names one header twice; keep one of the two"
        tls = mapping(upstream.get("tls"))
        if tls and isinstance(url := upstream.get("url"), str) and url.startswith("http://"):
            yield ("upstreams", name, "tls"), "has no effect on an http:// url; write https://, or remove it"
        yield from _certificates(tls, ("upstreams", name, "tls"))
        if "ask_usage" in upstream and upstream.get("dialect") in ("anthropic", "mcp", "rest"):
            dialect = shown(upstream["dialect"])
            yield ("upstreams", name, "ask_usage"), f"is for dialect openai, and this is {dialect}; remove it"
        classes = classes_of(written)
        for at, lane in enumerate(items(mapping(upstream.get("pause_when")).get("lanes"))):
            if isinstance(lane, str) and classes and lane not in classes:
                yield (
                    ("upstreams", name, "pause_when", "lanes", at),
                    f"{shown(lane)} is not one of priority.classes; {advice(lane, classes)}",
                )
        most = _whole(mapping(upstream.get("connections")).get("max"))
        stated = upstream.get("concurrency")
        adaptive = mapping(mapping(stated).get("adaptive"))
        yield from _bounds(adaptive, ("upstreams", name, "concurrency", "adaptive"))
        cap = _whole(stated.get("slots", adaptive.get("max")) if isinstance(stated, dict) else stated)
        if most is not None and cap is not None and most < cap:
            yield (
                ("upstreams", name, "connections", "max"),
                f"{most} is below the upstream's concurrency of {cap}; write {cap} or more, or lower that",
            )


def _store(store: dict[str, object]) -> Iterator[Fault]:
    try:
        url = store_url(store.get("url"))
    except WrongValueError:
        return
    if url.tls:
        yield from _certificates(store, ("store",))
        return
    for word in ("ca", "cert", "key", "verify"):
        if word in store:
            yield ("store", word), "has no effect without TLS; write rediss:// in url, or remove it"


def _certificates(section: dict[str, object], path: Path) -> Iterator[Fault]:
    if ("cert" in section) != ("key" in section):
        here, there = ("cert", "key") if "cert" in section else ("key", "cert")
        yield (*path, here), f"needs {there} beside it; write {path[-1]}.{there}, or remove it"
    if "ca" in section and section.get("verify") is False:
        yield (*path, "verify"), "contradicts ca: nothing is verified; remove one of them"


def _bounds(adaptive: dict[str, object], path: Path) -> Iterator[Fault]:
    """Of a cap that is learnt. Only what is stated can contradict: `start` gives way to the others."""
    most = _whole(adaptive.get("max", Adaptive().max))
    for word in ("min", "start"):
        number = _whole(adaptive.get(word))
        if number is not None and most is not None and number > most:
            yield (*path, word), f"{number} is above max, {most}; write {most} or less, or raise max"
    least, start = _whole(adaptive.get("min")), _whole(adaptive.get("start"))
    if least is not None and start is not None and start < least:
        yield (*path, "start"), f"{start} is below min, {least}; write {least} or more, or lower min"


def _whole(value: object) -> int | None:
    try:
        return words.whole(1, words.MOST, 1)(value)
    except WrongValueError:
        return None
