"""Figures: data and axes in, axes out. Colours are Okabe and Ito's, which colour-blind readers tell apart."""

import html
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

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


def plot_rank_frequency(ax: Axes, counts: Sequence[int], label: str) -> Axes:
    """How often the 1st, 2nd, 3rd, … most frequent token occurs, both axes logarithmic."""
    ordered = sorted((c for c in counts if c), reverse=True)
    ax.loglog(range(1, len(ordered) + 1), ordered, label=label)
    ax.set(xlabel="rank of the token", ylabel="occurrences")
    ax.legend()
    return ax


def plot_floor(ax: Axes, floors: Mapping[str, Mapping[int, float]], target: float) -> Axes:
    """The loss floor against the window length, a line a policy; below the dashed target is where a run can go.

    A floor of exactly 0 has no place on a logarithmic axis and is left out.
    """
    for name, by_window in floors.items():
        above_zero = {window: floor for window, floor in by_window.items() if floor > 0}
        ax.loglog(list(above_zero), list(above_zero.values()), marker="o", label=name)
    windows = sorted({w for by_window in floors.values() for w in by_window})
    ax.axhline(target, color=RED, linestyle="--", label=f"target {target}")
    ax.set_xticks(windows, [str(w) for w in windows])
    ax.minorticks_off()
    ax.set(xlabel="window length T, in tokens", ylabel="lowest possible loss, nats")
    ax.legend()
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
    ax.set(xlabel="optimizer step", ylabel="loss, nats a token")
    ax.legend(ncols=2)
    return ax


def plot_run(axes: Sequence[Axes], log: Mapping[str, Sequence[float]]) -> Sequence[Axes]:
    """Learning rate, gradient norm and speed of a run, on three axes."""
    panels = (
        ("lr", "learning rate (AdamW)", BLUE),
        ("grad_norm", "gradient norm", ORANGE),
        ("tokens/s", "tokens a second", GREEN),
    )
    for ax, (name, label, color) in zip(axes, panels, strict=True):
        ax.plot(log["step"], log[name], color=color)
        ax.set(xlabel="step", title=label)
        ax.set_ylim(bottom=0)
    return axes


def plot_by_position(ax: Axes, losses: Mapping[str, Sequence[float]], floor: Sequence[float], upto: int = 48) -> Axes:
    """Loss at each position of a window, a line a model, over the floor as a filled step; log scale from 0.001."""
    positions = range(min(upto, len(floor)))
    ax.fill_between(
        positions, list(floor)[:upto], step="mid", color=GREY, alpha=0.35, label="floor: no model can do better"
    )
    for name, by_position in losses.items():
        ax.step(positions, list(by_position)[:upto], where="mid", label=name)
    ax.set(xlabel="position in the window", ylabel="loss, nats", yscale="log", ylim=(1e-3, None))
    ax.legend()
    return ax


def plot_next_tokens(axes: Sequence[Axes], choices: Mapping[str, Mapping[str, float]]) -> Sequence[Axes]:
    """A next-token distribution a panel: the likeliest pieces and their probabilities."""
    for ax, (title, probs) in zip(axes, choices.items(), strict=True):
        ax.barh(list(probs), list(probs.values()), color=BLUE, height=0.7)
        ax.invert_yaxis()
        ax.set(title=title, xlim=(0, 1), xlabel="probability")
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", labelfontfamily="monospace")
    return axes


def plot_attention(
    axes: Sequence[Axes], maps: Sequence, pieces: Sequence[str], titles: Sequence[str]
) -> Sequence[Axes]:
    """(T, T) attention weights, a head a panel: rows look at columns, each scaled to its maximum; grey: future."""
    for i, (ax, weights, title) in enumerate(zip(axes, maps, titles, strict=True)):
        weights = np.asarray(weights)
        future = np.triu(np.ones_like(weights, dtype=bool), 1)
        shown = np.ma.masked_where(future, weights / weights.max(axis=1, keepdims=True))
        ax.imshow(shown, cmap=plt.get_cmap("Blues").with_extremes(bad="#d9d9d9"), vmin=0, vmax=1)
        ax.set_xticks(range(len(pieces)), pieces, rotation=90, fontsize=7, fontfamily="monospace")
        ax.set_yticks(range(len(pieces)), pieces if i == 0 else [""] * len(pieces), fontsize=7, fontfamily="monospace")
        ax.set_title(title, fontsize=9)
        ax.grid(visible=False)
    return axes


def draw_flow(ax: Axes, below: Sequence, block: Sequence, above: Sequence, repeat: int) -> Axes:
    """A flow diagram, bottom to top, of (what, shape behind it, colour) boxes.

    The boxes of `block` are passed `repeat` times, and each adds its answer to a stream that runs beside them.
    """
    boxes, pitch = [*below, *block, *above], 1.3
    arrow = {"arrowstyle": "->", "color": GREY, "shrinkA": 0, "shrinkB": 0}
    for level, (what, shape, color) in enumerate(boxes):
        y = level * pitch
        ax.add_patch(FancyBboxPatch((0, y), 4.4, 0.56, boxstyle="round,pad=0.05", facecolor=color, alpha=0.3))
        ax.text(2.2, y + 0.28, what, ha="center", va="center", fontsize=9)
        ax.text(5.2, y + 0.28, shape, ha="left", va="center", fontsize=9, family="monospace", color=GREY)
        if level:
            ax.annotate("", xy=(2.2, y - 0.06), xytext=(2.2, y - pitch + 0.62), arrowprops=arrow)
        if len(below) <= level < len(below) + len(block):
            ax.plot([2.2, -0.45, -0.45], [y - 0.22, y - 0.22, y + 0.82], color=GREY, linewidth=1)
            ax.annotate("", xy=(2.08, y + 0.82), xytext=(-0.46, y + 0.82), arrowprops=arrow)
            ax.plot(2.2, y + 0.82, marker="o", markersize=11, markeredgecolor=GREY, markerfacecolor="white")
            ax.text(2.2, y + 0.82, "+", ha="center", va="center_baseline", fontsize=9)
    bottom, top = len(below) * pitch - 0.4, (len(below) + len(block)) * pitch - 0.24
    ax.add_patch(plt.Rectangle((-0.9, bottom), 5.7, top - bottom, fill=False, linestyle="--", edgecolor=GREY))
    ax.text(-1.0, (top + bottom) / 2, f"{repeat} times", ha="right", va="center", fontsize=10)
    ax.set(xlim=(-2.4, 7), ylim=(-0.2, len(boxes) * pitch - 0.5))
    ax.axis("off")
    return ax


def coloured_text(text: str, spans: Sequence[tuple[int, int]], given: int, recited: int, title: str) -> str:
    """HTML of a text and a title: `given` characters bold, `recited` behind them underlined, spans numbered on blue.

    spans: (first character, the one behind the last), in order, not overlapping. Markup is shown as text.
    """
    parts = []
    edges = {0, given, given + recited, len(text), *(edge for span in spans for edge in span)}
    for a, b in pairwise(sorted(edges)):
        tag = "b" if b <= given else "u" if b <= given + recited else "span"
        piece = f"<{tag}>{html.escape(text[a:b]).replace(chr(10), '<br>')}</{tag}>"
        number = next((n for n, (start, end) in enumerate(spans, 1) if start <= a and b <= end), 0)
        first = f"<sup>{number}</sup>" if number and a == spans[number - 1][0] else ""
        parts.append(f'<span style="background:#cfe6f5;color:#000">{first}{piece}</span>' if number else piece)
    style = "font-family:Georgia,serif;line-height:1.5"
    return f'<div style="{style}"><em>{html.escape(title)}</em><br>{"".join(parts)}</div>'
