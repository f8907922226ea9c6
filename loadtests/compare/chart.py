"""The comparison as a picture, where matplotlib is installed (extra `load`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from loadtests.cases import GOALS, Case
from loadtests.peers import ENVOYS, OURS

OURS_COLOUR, ENVOY_COLOUR, PEER_COLOUR = "#1f6f8b", "#c8553d", "#b0b0b0"
COLUMNS: Final = 4


def can_draw() -> bool:
    return find_spec("matplotlib") is not None


def draw(rows: Sequence[Mapping[str, Any]], judged: Sequence[Mapping[str, Any]], file: Path) -> None:
    """A panel for each case: its figure for every proxy, as bars, with the verdict in its title."""
    import matplotlib as mpl  # noqa: PLC0415 - optional, and slow to import

    mpl.use("Agg")  # no display is needed
    from matplotlib import pyplot as plt  # noqa: PLC0415

    cases = [case for case in Case if any(row["case"] == case.value for row in rows)]
    height = -(-len(cases) // COLUMNS)
    figure, grid = plt.subplots(height, COLUMNS, figsize=(4 * COLUMNS, 3.2 * height), squeeze=False)
    panels = list(grid.flat)
    for panel, case in zip(panels, cases, strict=False):
        goal = GOALS[case]
        own = [row for row in rows if row["case"] == case.value and row[goal.figure] == row[goal.figure]]
        names = [row["name"] for row in own]
        values = [row[goal.figure] for row in own]
        panel.barh(names, values, color=[_colour(name) for name in names])
        panel.invert_yaxis()
        panel.margins(x=0.2)
        for number, value in enumerate(values):
            panel.text(
                value, number, f" {value:,.0f}" if value >= 1000 else f" {value:.3g}", va="center", fontsize=8
            )
        of_case = [one for one in judged if one["case"] == case.value]
        said = "; ".join(f"{one['value']:.2f} to {one['against']}: {one['verdict']}" for one in of_case)
        panel.set_title(f"{case.value}: {goal.said}\n{said}", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(cases) :]:
        panel.axis("off")
    figure.tight_layout()
    figure.savefig(file, dpi=130)
    plt.close(figure)


def _colour(name: str) -> str:
    return OURS_COLOUR if name == OURS else ENVOY_COLOUR if name in ENVOYS else PEER_COLOUR
