"""The page: a prompt, what the model makes of it, what of that is recited and what is found in the book in pieces."""

import os
import warnings
from collections.abc import Callable, Iterator
from textwrap import shorten
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # Gradio asks when it is imported

import gradio as gr
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from helpers.config import TARGET
from helpers.plots import plot_loss
from helpers.serve.engine import Completions, Engine
from helpers.serve.render import as_html, as_json, card_html
from helpers.serve.request import Request, RequestError

SIX = int(gr.__version__.split(".")[0]) >= 6  # Kaggle has 5, and what is there is not replaced
warnings.filterwarnings("ignore", message=".*will be removed in Gradio 6")  # ways that 5 has, and 6 is not asked for
SYSTEM_FONTS = ["ui-sans-serif", "system-ui", "sans-serif"]  # by name only: nothing is fetched
_LOOK: dict[str, Any] = {
    "theme": gr.themes.Default(font=SYSTEM_FONTS, font_mono=["ui-monospace", "monospace"]),
    "css": """
        .gradio-container { max-width: 1120px !important; margin: auto; }
        .completion { font-family: Georgia, serif; font-size: 1.05rem; line-height: 1.6; padding: .9rem 1.1rem;
                  border: 1px solid var(--border-color-primary); border-radius: 8px; margin-bottom: .8rem;
                  white-space: pre-wrap; overflow-wrap: anywhere; background: var(--background-fill-primary); }
        .completion { counter-reset: piece; }
        .completion mark, .legend mark { background: #cfe6f5; color: #10222e; border-radius: 3px; padding: 0 .08em; }
        .completion mark { border-left: 2px solid #0072b2; }
        .completion mark::before { counter-increment: piece; content: counter(piece); color: #0072b2; font-size: .65em;
                               font-family: ui-sans-serif, system-ui, sans-serif; vertical-align: super; }
        .completion .given { font-weight: 700; }
        .completion .recited, .legend .recited { text-decoration: underline 2px #0072b2; text-underline-offset: .2em; }
        .places { font-size: .88rem; margin: -.3rem 0 1.1rem; padding-left: 1.6rem; overflow-wrap: anywhere;
                  list-style: decimal; }
        .trace::first-letter { text-transform: uppercase; }
        .verdict { font-size: .92rem; opacity: .8; margin: 0 0 .3rem; }
        table.card, table.card tr, table.card td { border: 0 !important; border-collapse: collapse; }
        table.card td { padding: .4rem .6rem; border-bottom: 1px solid var(--border-color-primary) !important; }
        table.card td:first-child { opacity: .75; width: 45%; }
    """,
}
LOOK: dict[str, Any] = _LOOK if SIX else {}  # for `launch`; until Gradio 6, the page itself took it
_UNLISTED: dict[str, Any] = {"api_visibility": "private"} if SIX else {"api_name": False}  # what only the page may call
HEAD = (
    "# GPT-2 by heart\nA model that learnt one book. "
    "<span class='legend'><span class='recited'>Underlined</span> is what it recites: from its first word on, "
    "what the book says next after the prompt. <mark>Marked</mark> is what can be found anywhere in the book, "
    "in stretches of eight tokens or more, numbered: many pieces are a collage and no recitation. "
    "What is counted is what is new, behind the prompt.</span>"
)
QUIET: dict[str, Any] = {  # for `launch`, too; Gradio would publish the page by itself on Colab and Kaggle
    **({"footer_links": []} if SIX else {"show_api": False}),
    "ssr_mode": False,
    "quiet": True,
    "share": False,
}


def build_app(engine: Engine) -> gr.Blocks:
    """The page of a run, with its queue; `app.launch(**LOOK, **QUIET)` starts it. One API endpoint: /write."""
    with gr.Blocks(title="GPT-2 by heart", analytics_enabled=False, **({} if SIX else _LOOK)) as app:
        gr.Markdown(HEAD)
        with gr.Tab("Write"), gr.Row():
            with gr.Column(scale=3, min_width=320):
                prompt, write, stop = _prompt(engine.examples())
                output = gr.HTML(elem_id="output")
            with gr.Column(scale=2, min_width=280):
                controls = _controls(engine)
        with gr.Tab("The model"), gr.Row():
            with gr.Column(scale=3, min_width=320):
                gr.Plot(_curve(engine.log()), show_label=False, elem_id="curve", format="png")
            with gr.Column(scale=2, min_width=300):
                gr.HTML(card_html(engine.card()), elem_id="card")

        both = {"concurrency_limit": engine.limits.at_once, "concurrency_id": "write"}
        running = gr.on(
            [write.click, prompt.submit],
            lambda *values: (yield from map(as_html, _completions(engine, values))),
            [prompt, *controls],
            output,
            show_progress="hidden",
            **_UNLISTED,
            **both,
        )
        stop.click(None, cancels=[running], **_UNLISTED)
        gr.api(_api_of(engine), api_name="write", **both)
    return app.queue(max_size=engine.limits.waiting)


def _prompt(examples: list[tuple[str, bool]]) -> tuple[gr.Textbox, gr.Button, gr.Button]:
    """Where a prompt is typed, with examples, and the buttons that start and stop."""
    prompt = gr.Textbox(label="Prompt", lines=3, elem_id="prompt", placeholder="The beginning of something")
    with gr.Row():
        write = gr.Button("Write", variant="primary", elem_id="write")
        stop = gr.Button("Stop", variant="stop", elem_id="stop")
    gr.Examples(
        [[p] for p, _ in examples],
        [prompt],
        label="Prompts to begin with",
        example_labels=[
            f"{'in' if is_in else 'not in'} the book: {shorten(p, 40, placeholder=' …')}" for p, is_in in examples
        ],
        elem_id="examples",
    )
    return prompt, write, stop


def _controls(engine: Engine) -> list[gr.components.Component]:
    """All of a request but its prompt, in the order of its fields, at its defaults."""
    d, most = engine.default, engine.limits

    def slider(name: str, label: str, low: float, high: float, step: float, info: str | None = None) -> gr.Slider:
        return gr.Slider(low, high, getattr(d, name), step=step, label=label, info=info, elem_id=name)

    return [
        slider("new_tokens", "Max new tokens", 1, most.new_tokens, 1),
        slider("samples", "Number of samples", 1, most.samples, 1),
        slider("temperature", "Temperature", 0, 3, 0.05, "0: always the likeliest token"),
        slider("top_k", "Top-k", 0, 500, 1, "only the k likeliest tokens; 0: all"),
        slider("top_p", "Top-p", 0.01, 1, 0.01, "only the likeliest that reach p together"),
        slider("repetition_penalty", "Repetition penalty", 1, 2, 0.05, "1: none"),
        gr.Number(d.seed, label="Seed", precision=0, minimum=0, info="the same seed, the same text", elem_id="seed"),
        gr.Radio(engine.formats, value=d.weights, label="Weights", elem_id="weights"),
        gr.Radio(engine.devices, value=d.device, label="Device", elem_id="device"),
    ]


def _api_of(engine: Engine) -> Callable[..., dict[str, Any]]:
    """What a program asks; its signature is the API's."""
    d = engine.default

    def api(
        prompt: str,
        new_tokens: float = d.new_tokens,
        samples: float = d.samples,
        temperature: float = d.temperature,
        top_k: float = d.top_k,
        top_p: float = d.top_p,
        repetition_penalty: float = d.repetition_penalty,
        seed: float = d.seed,
        weights: str = d.weights,
        device: str = d.device,
    ) -> dict[str, Any]:
        values = (prompt, new_tokens, samples, temperature, top_k, top_p, repetition_penalty, seed, weights, device)
        *_, last = _completions(engine, values)
        return as_json(last)

    return api


def _completions(engine: Engine, values: tuple) -> Iterator[Completions]:
    try:
        yield from engine.completions(Request(*values))
    except RequestError as error:
        raise gr.Error(str(error), title="Not like this", print_exception=False) from None


def _curve(log: list[dict[str, float]]) -> Figure:
    """The loss of every step, as notebook 04 draws it."""
    with plt.rc_context({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}):
        fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
        if log:
            plot_loss(ax, {name: [row[name] for row in log] for name in log[0]}, TARGET)
        ax.set_title("How it learnt" if log else "No log was kept")
        plt.close(fig)
    return fig
