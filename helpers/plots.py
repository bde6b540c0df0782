"""Figures: data and axes in, axes out. Colours are Okabe and Ito's, which colour-blind readers tell apart."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#666666"

SERIES = {  # the notebooks in order, and what each adds
    "tokenization": "text to tokens,\nwindows, loss floor",
    "char baseline": "from a bigram model\nto a transformer",
    "GPT-2": "124,439,808\nparameters",
    "overfitting": "the training loop,\nloss curves",
    "memorization": "is a low loss\na memory?",
    "recipes": "AdamW, Muon,\nfull size",
    "generation": "sampling,\nreciting",
    "serving": "KV cache, int8,\nthe page",
    "laws": "repetition, secrets,\nforgetting",
}


def use_style() -> None:
    """One look for the whole series."""
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


def show_figure(fig: Figure, caption: str, alt: str, path: str | Path | None = None) -> None:
    """Show `fig` in a notebook, twice as fine as a screen has it, with its caption below; also write it to `path`.

    caption: "Figure 4.1. What is seen." in Markdown; alt: what the figure says, for who cannot see it.
    """
    from IPython.display import Markdown, display  # only notebooks have it

    png = _png(fig)
    width, height = (int.from_bytes(png[at : at + 4], "big") // 2 for at in (16, 20))  # where a PNG has its size
    size = {"width": width, "height": height, "alt": alt}
    display({"image/png": png, "text/plain": repr(fig)}, raw=True, metadata={"image/png": size})
    number, sentence, rest = caption.partition(". ")
    display(Markdown(f"**{number}.** {rest}" if sentence else caption))
    plt.close(fig)
    if path is not None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)


def _png(fig: Figure) -> bytes:
    """The same bytes whenever the data is the same."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=200, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


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


def plot_loss(
    ax: Axes,
    log: Mapping[str, Sequence[float]],
    target: float,
    floor: float | None = None,
    whole_corpus: Mapping[int, float] | None = None,
) -> Axes:
    """Batch loss (thin), mean of the last 100 (bold), whole corpus by step (dots), target and floor; log scale."""
    steps = log["step"]
    ax.semilogy(steps, log["loss"], color=SKY, linewidth=0.8, label="batch")
    ax.semilogy(steps, log["avg_loss"], color=BLUE, linewidth=2, label="mean of the last 100")
    if whole_corpus:
        ax.semilogy(list(whole_corpus), list(whole_corpus.values()), "o", color="black", label="whole corpus")
    ax.axhline(target, color=RED, linestyle="--", label=f"target {target}")
    if floor is not None:
        ax.axhline(floor, color=GREEN, linestyle="-.", label=f"floor {floor:.3f}")
    ax.set(xlabel="optimizer step", ylabel="loss, nats per token")
    ax.legend(ncols=2)
    return ax


def show_roadmap(here: int) -> None:
    """The series as a row of boxes; the notebook with number `here` is marked, and those before it are filled."""
    fig, ax = plt.subplots(figsize=(11, 1.5))
    for number, (title, adds) in enumerate(SERIES.items(), 1):
        left, now = 1.25 * (number - 1), number == here
        face = ORANGE if now else SKY if number < here else "white"
        ax.add_patch(plt.Rectangle((left, 0), 1.1, 1, facecolor=face, edgecolor=GREY, linewidth=2 if now else 1))
        ax.text(left + 0.55, 0.78, f"{number} · {title}", ha="center", va="center", fontsize=8.5, weight="bold")
        ax.text(left + 0.55, 0.34, adds, ha="center", va="center", fontsize=8)
        if number < len(SERIES):
            ax.annotate("", (left + 1.25, 0.5), (left + 1.1, 0.5), arrowprops={"arrowstyle": "->", "color": GREY})
        if now:
            ax.text(left + 0.55, 1.12, "you are here", ha="center", fontsize=9, color=RED, weight="bold")
    ax.set(xlim=(-0.05, 1.25 * len(SERIES) - 0.1), ylim=(-0.05, 1.3))
    ax.axis("off")
    titles = list(SERIES)
    done = f"; behind you: {', '.join(titles[: here - 1])}" if here > 1 else ""
    alt = f"The {len(titles)} notebooks: {', '.join(titles)}. You are at number {here}, {titles[here - 1]}{done}."
    show_figure(fig, f"Notebook {here} of {len(titles)}: {titles[here - 1]}.", alt)
