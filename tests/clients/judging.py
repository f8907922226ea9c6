"""What a client did in a scene, and whether it was right. Times and counts are the relay's, not its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from proxy.core.verdict import Kind, kind_of
from proxy.dialects.words import WORDS
from tests.clients.driven import Driver
from tests.clients.rows import Client
from tests.clients.scenes import SCENES, SENTENCE, Scene, staged
from tests.kit.recording import Exchange

FOUND = "1 note found for “room”."
"""What the tool of the demo upstream answers."""

EARLY_MS = 5.0
"""So much before the time told is on time: two clocks and a socket lie between."""


@dataclass(frozen=True)
class Attempt:
    """One request of the client's. `told_ms` is what its answer said, `waited_ms` when the next one came."""

    status: int
    reason: str
    told_ms: int | None
    waited_ms: float | None


@dataclass(frozen=True)
class Played:
    """A scene as it went: the attempts, what the client gave in the end, what it raised when impatient."""

    attempts: tuple[Attempt, ...]
    said: dict[str, Any]
    raised: dict[str, Any]
    heard: Exchange | None
    last: Exchange | None = None


async def play_all(client: Client, driver: Driver) -> dict[str, Played]:
    """Every scene by its name, side by side; before them the plain one, for its request and what it loads."""
    first, *others = SCENES
    played = {first.name: (plain := await play(first, client, driver))}
    found = await asyncio.gather(*(play(scene, client, driver, plain.heard) for scene in others))
    return played | {scene.name: each for scene, each in zip(others, found, strict=True)}


async def play(scene: Scene, client: Client, driver: Driver, heard: Exchange | None = None) -> Played:
    """Play a scene, twice at once where there is something to refuse: once with the client's own patience."""
    once = client.dialect == "mcp"  # nobody repeats a tool call by itself
    if scene.reason is None or once:
        played = await _once(scene, client, driver, heard, patient=True)
        return replace(played, raised=played.said)
    if not client.can_be_impatient and kind_of(scene.reason) is not Kind.STOP:
        return await _once(scene, client, driver, heard, patient=True)
    played, impatient = await asyncio.gather(
        _once(scene, client, driver, heard, patient=True),
        _once(scene, client, driver, heard, patient=False),
    )
    return replace(played, raised=impatient.said)


async def _once(
    scene: Scene, client: Client, driver: Driver, heard: Exchange | None, *, patient: bool
) -> Played:
    async with staged(scene, client.dialect, heard, client.calls) as stage:
        base = f"http://127.0.0.1:{stage.seen.port}/{client.dialect}"
        said = await driver.ask(base, scene.ask, patient=patient, headers=dict(scene.sends))
        work = [each for each in stage.seen.exchanges if is_work(each, client)]
        first, last = (work[0], work[-1]) if work else (None, None)
        return Played(attempts_of(work), said, {}, first, last)


def is_work(exchange: Exchange, client: Client) -> bool:
    """Is it a call to a model or a tool?"""
    if client.dialect == "mcp":
        return b'"tools/call"' in exchange.body
    return exchange.method == "POST" and exchange.path.startswith(f"/{client.dialect}/")


def attempts_of(exchanges: list[Exchange]) -> tuple[Attempt, ...]:
    """The exchanges of one call, in their order."""
    attempts = []
    for exchange, following in zip(exchanges, [*exchanges[1:], None], strict=True):
        told = exchange.headers.get("retry-after-ms")
        waited = None if following is None else (following.asked_at - exchange.answered_at) * 1000
        reason = exchange.headers.get("x-backpressure-reason", "")
        attempts.append(Attempt(exchange.status, reason, int(told) if told else None, waited))
    return tuple(attempts)


def faults(scene: Scene, client: Client, played: Played) -> list[str]:
    """What was not right, in words; empty: the client did the right thing, and so did we."""
    if scene.reason is None:
        return _through(scene, client, played)
    found = _returns(scene, client, played)
    said = played.raised
    if not said:
        return found  # it came back, and has no setting not to
    if "error" in said:
        wanted = client.errors.get(kind_of(scene.reason), "nothing")
        if said["error"] != wanted:
            found.append(f"raises {said['error']}, not {wanted}")
    elif client.dialect != "mcp":
        found.append("takes a refusal for an answer")
    text = said.get("text") or said.get("answer") or ""
    words = WORDS[scene.reason]
    if not any(sentence in text for sentence in (words.fact, words.advice, words.tool_advice)):
        found.append(f"hides our words: {text[:200]!r}")
    return found


def _through(scene: Scene, client: Client, played: Played) -> list[str]:
    found = []
    if client.dialect == "mcp":
        return [] if played.said.get("answer") == FOUND else [f"did not get the answer: {played.said}"]
    if played.said.get("answer") != SENTENCE:
        found.append(f"did not get the answer: {played.said}")
    if scene.ask == "streamed" and not _streamed(client, played):
        found.append(f"was not streamed to: {played.said}")
    if scene.ask == "tool" and not _called(client, played):
        found.append(f"did not call the tool: {played.said}")
    calls = 2 if scene.ask == "tool" else 1
    if len(played.attempts) != calls:
        found.append(f"made {len(played.attempts)} requests")
    return found


def _streamed(client: Client, played: Played) -> bool:
    """Told by the client; of an agent that shows whole answers alone, by what it asked for and got."""
    if not client.ran:
        return played.said.get("pieces", 0) > 1
    return played.last is not None and played.last.headers["content-type"].startswith("text/event-stream")


def _called(client: Client, played: Played) -> bool:
    """Told by the client; of an agent that runs commands, by what it says came of its command."""
    if not client.ran:
        return played.said.get("tool") == client.calls.arguments
    return played.last is not None and client.ran in played.last.body


def _returns(scene: Scene, client: Client, played: Played) -> list[str]:
    """Did it come back when told, and only then, and was it let in?"""
    first = played.attempts[0]
    if first.reason != scene.reason:
        return [f"the proxy said {first.reason or first.status}, not {scene.reason}"]
    found = []
    for before, after in zip(played.attempts, played.attempts[1:], strict=False):
        if before.told_ms is None:
            found.append("repeats a stop")
        elif before.waited_ms < before.told_ms - EARLY_MS:
            found.append(f"came back after {before.waited_ms:.0f} ms of {before.told_ms}")
        elif after.status != 200:
            found.append(f"came back as told and got {after.status} {after.reason}: our promise is broken")
    returned = len(played.attempts) > 1
    if returned and played.said.get("answer") != SENTENCE:
        found.append(f"returned, and did not get the answer: {played.said}")
    if kind_of(scene.reason) in {Kind.COME_BACK, Kind.UNAVAILABLE} and client.returns != returned:
        found.append("does not return" if client.returns else "returns by itself")
    return found
