"""Goodput against load as a picture, where matplotlib is installed (extra `load`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from loadtests.compare.bench import DIRECT
from loadtests.compare_overload.contenders import ENVOY_UNTOLD, TOLD, UNTOLD

COLOURS: Final = {
    TOLD: "#1f6f8b",
    UNTOLD: "#55b0c9",
    "haproxy": "#6a994e",
    "nginx": "#8a5a9e",
    "envoy": "#c8553d",
    ENVOY_UNTOLD: "#e9a178",
    DIRECT: "#909090",
}
PANELS: Final = {
    "good_per_capacity": "goodput / capacity",
    "critical": "critical calls done in time",
    "attempts": "attempts of a call",
    "jain": "Jain's index over tenants",
}


def draw(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Goodput, large and with the ideal line; beside it what the callers met."""
    import matplotlib as mpl  # noqa: PLC0415 - optional, and slow to import

    mpl.use("Agg")  # no display is needed
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure = plt.figure(figsize=(13, 6))
    grid = figure.add_gridspec(3, 5)
    places = [grid[:, :3], grid[0, 3:], grid[1, 3:], grid[2, 3:]]
    factors = sorted({row["factor"] for row in rows})
    names = list(dict.fromkeys(row["name"] for row in rows))
    for (what, title), place in zip(PANELS.items(), places, strict=True):
        panel = figure.add_subplot(place)
        if what == "good_per_capacity":
            ends = [factors[0], *(factor for factor in (1.0,) if factors[0] < 1 < factors[-1]), factors[-1]]
            panel.plot(ends, [min(1.0, at) for at in ends], "k--", linewidth=1, label="ideal")
        for name in names:
            own = sorted((row for row in rows if row["name"] == name), key=lambda row: row["factor"])
            at, values = [row["factor"] for row in own], [row[what] for row in own]
            width, order = (2.5, 3) if name in (TOLD, UNTOLD) else (1.2, 2)
            [line] = panel.plot(at, values, marker="o", markersize=4, linewidth=width, zorder=order)
            line.set(color=COLOURS[name], label=name)
        panel.set_xscale("log")
        panel.set_xticks(factors, [f"{factor:g}x" for factor in factors])
        panel.minorticks_off()
        panel.set_ylim(bottom=0)
        panel.set_title(title, fontsize=10)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        if what == "good_per_capacity":
            panel.set_xlabel("load: logical calls a second, before retries, as a multiple of capacity")
            panel.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(file, dpi=130)
    plt.close(figure)
