"""Results -> one SVG. Needs matplotlib (the extra ``bench``), which nothing else here imports."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.bench.containers import SERVERS
from tests.bench.results import Results

PANELS = (
    ("ttft_p50", "TTFT p50, ms (log scale)", True),
    ("gap_p99", "Inter-token p99, ms (log scale)", True),
    ("tokens_per_s", "Tokens/s", False),
    ("cpu_per_1000_tokens", "Server CPU s per 1000 tokens", False),
)
COLOURS = ("#7f8c9b", "#2f81f7", "#e3872d", "#2ea58c", "#a371f7", "#d65db1")
INK = "#808b96"
"""A grey that can be read on white and on black: GitHub shows the file in both."""


def check() -> None:
    """Say before anything is measured that nothing could be drawn.

    Raises:
        SystemExit: matplotlib is not there.
    """
    if not find_spec("matplotlib"):
        raise SystemExit("bench: matplotlib is not installed; use pip install -e '.[bench]', or leave out --out.")


def write(results: Results, file: Path) -> None:
    """One panel per metric, grouped by concurrency; bars are medians over rounds, lines reach from the least to the greatest."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    style: dict[Any, Any] = {"svg.hashsalt": "ray-serve-cai", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif"}
    style |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor"), INK)
    with mpl.rc_context(style):
        figure, axes = pyplot.subplots(2, 2, figsize=(9, 6.2))
        servers, levels = results.servers(), results.concurrencies()
        width = 0.8 / len(servers)
        for axis, (metric, title, is_log) in zip(axes.flat, PANELS, strict=True):
            for number, server in enumerate(servers):
                spreads = [results.spread(server, level, metric) for level in levels]
                places = [place + (number - (len(servers) - 1) / 2) * width for place in range(len(levels))]
                heights = [each.median for each in spreads]
                errors = [[each.median - each.low for each in spreads], [each.high - each.median for each in spreads]]
                axis.bar(places, heights, width * 0.92, color=COLOURS[number % len(COLOURS)], label=SERVERS[server].title)
                axis.errorbar(places, heights, yerr=errors, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
                for place, each in zip(places, spreads, strict=True):
                    above = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "fontsize": 7, "color": INK}
                    axis.annotate(_short(each.median), (place, each.high), **above)
            axis.set_title(title, fontsize=10)
            axis.set_xticks(range(len(levels)), [f"{level}" for level in levels])
            axis.set_xlabel("streams at a time")
            if is_log:
                axis.set_yscale("log")
            axis.margins(y=0.18)
            axis.spines[["top", "right"]].set_visible(False)
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=len(labels), frameon=False)
        figure.tight_layout(rect=(0, 0, 1, 0.95))
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)


def _short(value: float) -> str:
    """Three digits are enough above a bar.

    >>> _short(1234.5), _short(12.34), _short(0.456)
    ('1234', '12.3', '0.46')
    """
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
