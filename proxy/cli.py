"""The command `backpressure`: serve · demo · check · schema · explain."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import uvloop

from proxy import __version__
from proxy.core import gate
from proxy.demo import Behaviour, serve_demo
from proxy.explain import NoRoute, explain
from proxy.identity import BadHeader
from proxy.server import CannotListen, Started, run
from proxy.settings import Settings, SettingsError, from_upstream, json_schema, load, read, shown
from proxy.telemetry import Log
from proxy.workers import Serving, WorkerFailed, supervise

WRONG = 2
"""Exit code for a configuration or an argument that is wrong; 1 is for what fails at run time."""

DEMO_PORT = 9000

app = typer.Typer(
    help="A reverse proxy that tells AI agents the truth about capacity.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[Path, typer.Argument(help="The configuration, in YAML.", show_default=False)]


@app.command()
def serve(
    file: Annotated[
        Path | None, typer.Argument(help="The configuration, in YAML.", show_default=False)
    ] = None,
    upstream: Annotated[str | None, typer.Option(help="URL of one upstream, instead of a file.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="A known provider, instead of a file: openai, ollama, … (docs/presets.md)."),
    ] = None,
    dialect: Annotated[
        str | None, typer.Option(help="How that upstream speaks.", show_default="openai")
    ] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT for agents, without a file.")] = None,
    admin: Annotated[str | None, typer.Option(help="HOST:PORT of the control plane, without a file.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the port.")] = 1,
    counts_per_worker: Annotated[
        bool, typer.Option("--counts-per-worker", help="Accept that each worker counts for itself.")
    ] = False,
) -> None:
    """Run the proxy, from a FILE or in front of one --upstream or --preset."""
    if (file is None) == (upstream is None and preset is None):
        _fail("serve takes a configuration FILE, or without one --upstream URL or --preset NAME", WRONG)
    if file is not None and (listen or admin):
        _fail("a configuration FILE says itself where to listen; write it there", WRONG)
    try:
        if file:
            settings = _load(file)
        else:
            settings = from_upstream(upstream, dialect, preset=preset, listen=listen, admin=admin)
    except SettingsError as error:
        _fail(str(error), WRONG)
    if workers == 1:
        _run(run(settings, file, Log(), _say_listening))
        return
    _check_workers(settings, workers, counts_per_worker=counts_per_worker)
    _run(_supervise(settings, file, workers))


@app.command()
def demo() -> None:
    """Run the proxy in front of a simulated model and tool upstream, and print what to paste."""
    # The example is part of the package, so that the command works from anywhere.
    with resources.as_file(resources.files("proxy.demo") / "demo.yaml") as path:
        _run(_demo(_load(path)))


@app.command()
def check(
    file: ConfigFile,
    show: Annotated[bool, typer.Option("--show", help="Print what each preset stands for.")] = False,
) -> None:
    """Read FILE as `serve` would, and print every error in it (exit code 2) or nothing (0)."""
    try:
        document, settings = read(file, os.environ)
    except SettingsError as error:
        _fail(str(error), WRONG)
    if show:
        rows = list(shown(document))
        print("\n".join(["upstreams:", *rows]) if rows else "no upstream has a preset")
    routes, upstreams = len(settings.routes), len(settings.upstreams)
    print(f"{file}: valid, {routes} route{'s'[: routes != 1]}, {upstreams} upstream{'s'[: upstreams != 1]}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    print(json.dumps(json_schema(), indent=2))


@app.command(name="explain")
def explain_call(
    file: ConfigFile,
    method: Annotated[str, typer.Argument(help="Such as POST.")],
    path: Annotated[str, typer.Argument(help="Such as /openai/v1/chat/completions.")],
    header: Annotated[
        list[str] | None, typer.Option("-H", "--header", help="`name: value`, as for curl.")
    ] = None,
) -> None:
    """Print which route, lane, buckets and caps a call would meet."""
    headers = {}
    for line in header or []:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            _fail(f"a header is written `name: value`, not {line!r}", WRONG)
        headers[name.strip().lower().encode()] = value.strip().encode()
    try:
        for fact in explain(_load(file), method.upper(), path, headers):
            print(fact)
    except (NoRoute, BadHeader) as error:
        _fail(str(error), WRONG)


@app.command()
def version() -> None:
    """Print the version, and whether the fast path is compiled (setup.py)."""
    print(f"{__version__} ({'pure Python' if gate.__file__.endswith('.py') else 'compiled'})")


def main() -> None:
    """The entry point."""
    app()


async def _demo(settings: Settings) -> None:
    behaviour = Behaviour()
    async with AsyncExitStack() as stack:
        try:
            upstream = await stack.enter_async_context(serve_demo(behaviour, port=DEMO_PORT))
        except OSError as error:
            raise CannotListen(
                f"cannot listen on 127.0.0.1:{DEMO_PORT} (the simulated upstream): another program listens "
                "there; stop it"
            ) from error
        at_once, each = behaviour.slots, f"{behaviour.latency_s:g}s"
        print(f"upstream   {upstream.url}  (simulated: {at_once} at a time, {each} each)")
        await run(settings, None, Log(), _say_what_to_paste)


def _check_workers(settings: Settings, workers: int, *, counts_per_worker: bool) -> None:
    if not settings.store.shared and not counts_per_worker:
        _fail(
            f"serve --workers {workers} needs a store that the workers share: with `store: memory` each one "
            f"counts for itself, and together they would let through {workers} times every cap, bucket, "
            "quota and retry budget; write `store: redis://…` in a file, or --workers 1, or divide those "
            "numbers yourself and say --counts-per-worker",
            WRONG,
        )
    first = settings.admin.listen.port
    ports = range(first, first + workers) if first else range(0)
    if first and (ports[-1] > 65535 or settings.listen.port in ports):
        _fail(
            f"serve --workers {workers} takes a control plane's port for each worker, {first} to "
            f"{ports[-1]}: that runs into `listen` or beyond 65535; write another admin.listen",
            WRONG,
        )


async def _supervise(settings: Settings, file: Path | None, workers: int) -> None:
    try:
        code = await supervise(settings, file, workers, _say_serving)
    except WorkerFailed as error:
        _fail(str(error), 1)
    if code:
        raise typer.Exit(code)


def _say_serving(serving: Serving) -> None:
    controls = ", ".join(f"http://{control}" for control in serving.controls)
    print(f"data plane on http://{serving.data}, control planes on {controls}", file=sys.stderr, flush=True)


def _say_listening(started: Started) -> None:
    print(f"data plane on http://{started.data}, control plane on http://{started.control}", file=sys.stderr)


def _say_what_to_paste(started: Started) -> None:
    data, control = f"http://{started.data}", f"http://{started.control}"
    print(
        f"""\
proxy      {data}
control    {control}  (/healthz /readyz /metrics /state)

Point an agent at it:
  export OPENAI_BASE_URL={data}/openai/v1 OPENAI_API_KEY=any
  export ANTHROPIC_BASE_URL={data}/anthropic ANTHROPIC_API_KEY=any
  export GOOGLE_GEMINI_BASE_URL={data}/gemini GEMINI_API_KEY=any
  a REST tool:  {data}/tools/search?q=backpressure
  an MCP URL:   {data}/mcp

See a refusal, with the time to come back (two calls; the second answers 429):
  curl -i '{data}/tools/report?call=[1-2]'

Ctrl-C drains and ends it.
""",
        flush=True,
    )


def _load(file: Path) -> Settings:
    try:
        return load(file, os.environ)
    except SettingsError as error:
        _fail(str(error), WRONG)


def _run(main: Coroutine[Any, Any, None]) -> None:
    try:
        uvloop.run(main)
    except CannotListen as error:
        _fail(str(error), 1)


def _fail(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(code)
