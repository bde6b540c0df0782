"""Figures: data and axes in, axes out. Colours are Okabe and Ito's, which colour-blind readers tell apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#666666"


def use_style() -> None:
    """One look for the whole series, and PNG files whose bytes repeat."""
    from matplotlib_inline.backend_inline import set_matplotlib_formats  # only notebooks have it

    plt.rcParams.update(
        {
            "figure.figsize": (8, 3.6),
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY]),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.alpha": 0.25,
            "legend.frameon": False,
            "font.size": 10,
        }
    )
    set_matplotlib_formats("png", bbox_inches="tight", metadata={"Software": None})


def save_figure(fig: Figure, path: str | Path) -> Path:
    """Write a PNG that is the same, byte for byte, whenever the data is; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=120, bbox_inches="tight", metadata={"Software": None})
    return path


def plot_lines(ax: Axes, lines: Mapping[str, tuple[Sequence, Sequence]], xlabel: str, ylabel: str) -> Axes:
    """Named (x, y) lines with a legend."""
    for name, (x, y) in lines.items():
        ax.plot(x, y, label=name, marker="o" if len(x) < 20 else None, markersize=4)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return ax


def plot_bars(ax: Axes, values: Mapping[str, float], xlabel: str, fmt: str = "{:.3f}", color: str = BLUE) -> Axes:
    """Horizontal bars, first on top, each with its number."""
    names, numbers = list(values), list(values.values())
    bars = ax.barh(names, numbers, color=color, height=0.65)
    ax.bar_label(bars, [fmt.format(n) for n in numbers], padding=4)
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.grid(axis="y", visible=False)
    ax.set(xlabel=xlabel)
    return ax


def plot_loss(ax: Axes, log: Mapping[str, Sequence[float]], target: float, floor: float | None = None) -> Axes:
    """Batch loss (thin), mean of the last 100 (bold), best (dotted), target and floor as lines; log scale."""
    steps = log["step"]
    ax.semilogy(steps, log["loss"], color=SKY, linewidth=0.8, label="batch")
    ax.semilogy(steps, log["avg_loss"], color=BLUE, linewidth=2, label="mean of the last 100")
    ax.semilogy(steps, log["best_loss"], color=GREY, linestyle=":", label="best batch so far")
    ax.axhline(target, color=RED, linestyle="--", label=f"target {target}")
    if floor is not None:
        ax.axhline(floor, color=GREEN, linestyle="--", label=f"floor {floor:.3f} of such windows")
    ax.set(xlabel="optimizer step", ylabel="loss, nats per token")
    ax.legend(ncols=2)
    return ax
