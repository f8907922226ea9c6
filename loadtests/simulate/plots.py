"""Four pictures: goodput against load, success by class, age of the queue, times told against times kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, Final

from loadtests.simulate.calls import CLASSES
from loadtests.simulate.playing import VARIANTS, Played
from loadtests.simulate.scenarios import LOADS

COLOURS: Final = {"default": "#1f6f8b", "told": "#e0a030", "direct": "#b0b0b0"}
CLASS_COLOURS: Final = ("#c8553d", "#1f6f8b", "#8a8a8a")
MOST_DOTS: Final = 4000
UPSTREAMS: Final = {"u1": "U1 fixed: 32 slots", "u2": "U2 knee: collapses past 32", "u3": "U3 LLM streams"}


def can_draw() -> bool:
    """Is matplotlib installed (extra `load`)?"""
    return find_spec("matplotlib") is not None


def curves(played: Played) -> dict[str, Any]:
    """What the pictures show of one run besides its figures."""
    samples = played.ledger.samples
    every = max(1, len(samples) // 600)
    returns = played.ledger.returns
    step = max(1, len(returns) // MOST_DOTS)
    return {
        "queue_age": [[row[0], *row[3:]] for row in samples[::every]],
        "cap": [[row[0], row[1], row[2]] for row in samples[::every]],
        "told_and_kept": [
            [row[1], row[2] - row[0] + row[3], row[4]] for row in returns[::step] if row[3] >= 0
        ],
        "broken": [row[1] for row in returns[::step] if row[3] < 0],
    }


def draw(by_seed: Mapping[int, Mapping[Any, Any]], shown: Mapping[str, Any], stem: Path) -> list[Path]:
    """Draw what was played; the files."""
    import matplotlib as mpl  # noqa: PLC0415 - optional, and slow to import

    mpl.use("Agg")  # no display is needed
    from matplotlib import pyplot as plt  # noqa: PLC0415

    files = []
    for name, picture in _pictures(by_seed, shown):
        figure, panels = plt.subplots(1, 3, figsize=(15, 4.2), squeeze=False)
        if picture(panels[0]):
            for panel in panels[0]:
                if not panel.has_data():
                    panel.axis("off")
                panel.spines[["top", "right"]].set_visible(False)
                panel.tick_params(labelsize=8)
            figure.tight_layout()
            file = stem.with_name(f"{stem.name}-{name}.png")
            figure.savefig(file, dpi=120)
            files.append(file)
        plt.close(figure)
    return files


def _pictures(
    by_seed: Mapping[int, Mapping[Any, Any]], shown: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    yield "goodput", lambda panels: _goodput(panels, by_seed)
    yield "success", lambda panels: _success(panels, by_seed)
    yield "queue-age", lambda panels: _queue_age(panels, shown)
    yield "retry-after", lambda panels: _kept(panels, shown)


def _over_loads(
    by_seed: Mapping[int, Mapping[Any, Any]], upstream: str, variant: str, figure: str
) -> tuple[list[float], list[float]]:
    """Loads that were played, and the median of a figure at each."""
    loads, values = [], []
    for load in LOADS:
        found = [
            runs[f"{upstream}@{load:g}", variant].get(figure, float("nan"))
            for runs in by_seed.values()
            if (f"{upstream}@{load:g}", variant) in runs
        ]
        if found:
            loads.append(load)
            values.append(median(found))
    return loads, values


def _goodput(panels: Any, by_seed: Mapping[int, Mapping[Any, Any]]) -> bool:
    drawn = False
    for panel, (upstream, title) in zip(panels, UPSTREAMS.items(), strict=True):
        panel.plot(LOADS, [min(load, 1.0) for load in LOADS], "k--", lw=1, label="ideal")
        for variant in VARIANTS:
            loads, values = _over_loads(by_seed, upstream, variant, "goodput")
            drawn = drawn or bool(loads)
            done = [value * min(load, 1.0) for load, value in zip(loads, values, strict=True)]
            panel.plot(loads, done, "o-", color=COLOURS[variant], label=variant, ms=4)
        _loads(panel, f"{title}: goodput / capacity")
        panel.set_ylim(0, 1.1)
        panel.legend(fontsize=8)
    return drawn


def _success(panels: Any, by_seed: Mapping[int, Mapping[Any, Any]]) -> bool:
    drawn = False
    for panel, (upstream, title) in zip(panels, UPSTREAMS.items(), strict=True):
        for name, colour in zip(CLASSES, CLASS_COLOURS, strict=True):
            for variant, style in (("default", "o-"), ("direct", ":")):
                loads, values = _over_loads(by_seed, upstream, variant, f"{name}_success")
                drawn = drawn or bool(loads)
                panel.plot(loads, values, style, color=colour, label=f"{name}, {variant}", ms=4)
        _loads(panel, f"{title}: calls that succeed")
        panel.set_ylim(0, 1.05)
        panel.legend(fontsize=7)
    return drawn


def _queue_age(panels: Any, shown: Mapping[str, Any]) -> bool:
    names = [name for name in ("u1@2/default", "u1@10/default", "outage/default") if name in shown]
    for panel, name in zip(panels, names, strict=False):
        rows = shown[name]["queue_age"]
        for index, (title, colour) in enumerate(zip(CLASSES, CLASS_COLOURS, strict=True), start=1):
            panel.plot([row[0] for row in rows], [row[index] for row in rows], color=colour, label=title)
        panel.set_title(f"{name}: age of the oldest waiter, s", fontsize=9)
        panel.set_xlabel("seconds", fontsize=8)
        panel.legend(fontsize=8)
    return bool(names)


def _kept(panels: Any, shown: Mapping[str, Any]) -> bool:
    names = [name for name in ("u1@2/default", "u1@10/default", "brownout/default") if name in shown]
    for panel, name in zip(panels, names, strict=False):
        rows, broken = shown[name]["told_and_kept"], shown[name]["broken"]
        panel.plot([0, 60], [0, 60], "k--", lw=1)
        for rank, colour in enumerate(CLASS_COLOURS):
            own = [row for row in rows if row[2] == rank]
            panel.plot([row[0] for row in own], [row[1] for row in own], ".", color=colour, ms=2,
                       label=f"{CLASSES[rank]}: let in")  # fmt: skip
        panel.plot(broken, [0] * len(broken), "|", color="black", ms=6, label=f"refused again: {len(broken)}")
        panel.set_title(f"{name}: seconds promised, and until let in", fontsize=9)
        panel.legend(fontsize=7)
    return bool(names)


def _loads(panel: Any, title: str) -> None:
    panel.set_xscale("log")
    panel.set_xticks(LOADS, [f"{load:g}x" for load in LOADS])
    panel.minorticks_off()
    panel.set_title(title, fontsize=9)
