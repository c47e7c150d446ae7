"""The picture of docs/benchmarks.md, as SVG: for some works, the times of all libraries as multiples of mpqueue's."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.contenders import BareLoop
from benchmarks.sections import OWN, PICTURE, Questions, Row, Section
from benchmarks.tables import EQUAL, ratio, seconds

mpl.use("svg")
mpl.rcParams.update(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "mpqueue",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
    }
)

SLOWER, FASTER, EVEN = "#1f77b4", "#d62728", "#999999"
ACROSS = 3


def draw(file: Path, questions: Questions) -> None:
    """Draw the works of `PICTURE` that have been measured."""
    works = [(section, row) for section, row in PICTURE if row.is_in(questions)]
    down = -(-len(works) // ACROSS)
    figure, panels = plt.subplots(down, ACROSS, figsize=(9.0, 2.2 * down), sharey=True, squeeze=False)
    for axes, (section, row) in zip(panels.flat, works, strict=False):
        _panel(axes, questions, section, row)
    for axes in panels.flat[len(works) :]:
        axes.remove()
    figure.tight_layout()
    figure.savefig(file, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    file.write_text(re.sub(r"[ \t]+$", "", file.read_text(), flags=re.MULTILINE))


def _panel(axes: Axes, questions: Questions, section: Section, row: Row) -> None:
    """A bar for each library, from mpqueue's time to its own, on a logarithmic scale."""
    own = row.value(questions, section.columns, OWN) or 1.0
    names = [name for name in reversed(list(section.columns)) if name not in (OWN, BareLoop.name)]
    for at, name in enumerate(names):
        value = row.value(questions, section.columns, name)
        if value is None:
            continue
        times = value / own
        colour = FASTER if times * EQUAL < 1 else SLOWER if times > EQUAL else EVEN
        axes.barh(at, times - 1, left=1, color=colour)
        shorter = times < 1
        axes.text(
            times / 1.1 if shorter else times * 1.1,
            at,
            ratio(value, own),
            va="center",
            ha="right" if shorter else "left",
            fontsize=7,
        )
    axes.axvline(1, color="#333333", linewidth=1)
    axes.set(xscale="log", xlim=(0.04, 200), title=f"{row.title}\nmpqueue: {seconds(own)}")
    axes.title.set_fontsize(8)
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks([0.1, 1, 10, 100], ["0.1x", "1x", "10x", "100x"])
    axes.minorticks_off()
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", length=0)
