"""The page: a prompt, what the model makes of it, what of that is recited and what is found in the book in pieces."""

import html
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from textwrap import shorten
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # Gradio asks when it is imported

import gradio as gr
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from helpers.config import TARGET
from helpers.plots import BLUE, RED
from helpers.serve.engine import Answer, Answers, Request, RequestError, Served

SIX = int(gr.__version__.split(".")[0]) >= 6  # Kaggle has 5, and what is there is not replaced
warnings.filterwarnings("ignore", message=".*will be removed in Gradio 6")  # ways that 5 has, and 6 is not asked for
SYSTEM_FONTS = ["ui-sans-serif", "system-ui", "sans-serif"]  # by name only: nothing is fetched
_LOOK: dict[str, Any] = {
    "theme": gr.themes.Default(font=SYSTEM_FONTS, font_mono=["ui-monospace", "monospace"]),
    "css": """
        .gradio-container { max-width: 1120px !important; margin: auto; }
        .answer { font-family: Georgia, serif; font-size: 1.05rem; line-height: 1.6; padding: .9rem 1.1rem;
                  border: 1px solid var(--border-color-primary); border-radius: 8px; margin-bottom: .8rem;
                  white-space: pre-wrap; overflow-wrap: anywhere; background: var(--background-fill-primary); }
        .answer { counter-reset: piece; }
        .answer mark, .legend mark { background: #cfe6f5; color: #10222e; border-radius: 3px; padding: 0 .08em; }
        .answer mark { border-left: 2px solid #0072b2; }
        .answer mark::before { counter-increment: piece; content: counter(piece); color: #0072b2; font-size: .65em;
                               font-family: ui-sans-serif, system-ui, sans-serif; vertical-align: super; }
        .answer .given { font-weight: 700; }
        .answer .recited, .legend .recited { text-decoration: underline 2px #0072b2; text-underline-offset: .2em; }
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


def build_app(served: Served) -> gr.Blocks:
    """The page of a run, with its queue; `app.launch(**LOOK, **QUIET)` starts it. One API endpoint: /write."""
    limits = served.limits
    with gr.Blocks(title="GPT-2 by heart", analytics_enabled=False, **({} if SIX else _LOOK)) as app:
        gr.Markdown(HEAD)
        with gr.Tab("Write"), gr.Row():
            with gr.Column(scale=3, min_width=320):
                prompt = gr.Textbox(label="Prompt", lines=3, elem_id="prompt", placeholder="The beginning of something")
                with gr.Row():
                    write = gr.Button("Write", variant="primary", elem_id="write")
                    stop = gr.Button("Stop", variant="stop", elem_id="stop")
                known = served.examples()
                gr.Examples(
                    [[p] for p, _ in known],
                    [prompt],
                    label="Prompts to begin with",
                    example_labels=[_label(*example) for example in known],
                    elem_id="examples",
                )
                output = gr.HTML(elem_id="output")
            with gr.Column(scale=2, min_width=280):
                controls = _controls(served)
        with gr.Tab("The model"), gr.Row():
            with gr.Column(scale=3, min_width=320):
                gr.Plot(_curve(served.log()), show_label=False, elem_id="curve", format="png")
            with gr.Column(scale=2, min_width=300):
                gr.HTML(_card(served.card()), elem_id="card")

        both = {"concurrency_limit": limits.at_once, "concurrency_id": "write"}
        running = gr.on(
            [write.click, prompt.submit],
            lambda *values: (yield from map(_as_html, _answers(served, values))),
            [prompt, *controls],
            output,
            show_progress="hidden",
            **_UNLISTED,
            **both,
        )
        stop.click(None, cancels=[running], **_UNLISTED)
        gr.api(_api_of(served), api_name="write", **both)
    return app.queue(max_size=limits.waiting)


def _label(prompt: str, is_in: bool) -> str:
    return f"{'in' if is_in else 'not in'} the book: {shorten(prompt, 40, placeholder=' …')}"


def _api_of(served: Served) -> Callable[..., dict[str, Any]]:
    """What a program asks; its signature is the API's."""

    def api(
        prompt: str,
        new_tokens: float = 128,
        samples: float = 1,
        temperature: float = 0.8,
        top_k: float = 50,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: float = 1337,
        weights: str = served.formats[0],
        device: str = "cpu",
    ) -> dict[str, Any]:
        values = (prompt, new_tokens, samples, temperature, top_k, top_p, repetition_penalty, seed, weights, device)
        *_, last = _answers(served, values)
        return _as_json(last)

    return api


def _controls(served: Served) -> list[gr.components.Component]:
    """All of a request but its prompt, in the order of its fields."""
    new = gr.Slider(1, served.limits.new_tokens, 128, step=1, label="Max new tokens", elem_id="new_tokens")
    samples = gr.Slider(1, served.limits.samples, 1, step=1, label="Number of samples", elem_id="samples")
    temperature = gr.Slider(0, 3, 0.8, step=0.05, label="Temperature", info="0: always the likeliest token")
    top_k = gr.Slider(0, 500, 50, step=1, label="Top-k", info="only the k likeliest tokens; 0: all")
    top_p = gr.Slider(0.01, 1, 1, step=0.01, label="Top-p", info="only the likeliest that reach p together")
    penalty = gr.Slider(1, 2, 1, step=0.05, label="Repetition penalty", info="1: none")
    seed = gr.Number(1337, label="Seed", precision=0, minimum=0, info="the same seed, the same text", elem_id="seed")
    weights = gr.Radio(served.formats, value=served.formats[0], label="Weights", elem_id="weights")
    device = gr.Radio(served.devices, value="cpu", label="Device", elem_id="device")
    temperature.elem_id, top_k.elem_id, top_p.elem_id = "temperature", "top_k", "top_p"
    return [new, samples, temperature, top_k, top_p, penalty, seed, weights, device]


def _answers(served: Served, values: tuple) -> Iterator[Answers]:
    try:
        yield from served.answers(Request(*values))
    except RequestError as error:
        raise gr.Error(str(error), title="Not like this", print_exception=False) from None


def _as_html(now: Answers) -> str:
    """All texts of a request, marked, with their places; a line about the speed above."""
    speed = f"{now.new_tokens:,} tokens, {now.tokens_per_second:,.0f} a second"
    return f'<p class="verdict" id="speed">{speed}</p>' + "".join(_one(text) for text in now.texts)


def _one(answer: Answer) -> str:
    text, trace, given = answer.prompt + answer.new, answer.trace, len(answer.prompt)
    styles = {"given": (0, given), "recited": (given, given + trace.recited_characters)}
    parts, places, end = [], [], 0
    for span in trace.spans:
        parts.append(_styled(text, end, span.start, styles))
        words, end = " ".join(text[span.start : span.end].split()), span.end
        short = words if len(words) <= 60 else f"{words[:38]} … {words[-18:]}"
        place = _safe(f"{span.speaker or 'the book'}, from line {span.line:,}")
        parts.append(f'<mark title="{place}">{_styled(text, span.start, end, styles)}</mark>')
        places.append(f"<li>{place}: <em>{_safe(short)}</em></li>")
    parts.append(_styled(text, end, len(text), styles))
    listed = f'<ol class="places">{"".join(places)}</ol>' if places else ""
    verdict = f'<p class="verdict trace"><b>{trace.in_words()}</b></p>'
    return f'{verdict}<div class="answer" dir="auto">{"".join(parts)}</div>{listed}'


def _styled(text: str, start: int, end: int, styles: Mapping[str, tuple[int, int]]) -> str:
    """The characters from start to end; those in a range of `styles` have its name for a class."""
    inside = {edge for first, behind in styles.values() for edge in (first, behind) if start < edge < end}
    parts = []
    for a, b in pairwise(sorted({start, *inside, end})):
        name = next((name for name, (first, behind) in styles.items() if first <= a and b <= behind), None)
        parts.append(f'<span class="{name}">{_safe(text[a:b])}</span>' if name else _safe(text[a:b]))
    return "".join(parts)


def _safe(text: str) -> str:
    """Markup as text, and characters that cannot be seen as their symbols."""
    visible = "".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else c for c in text)
    return html.escape(visible.replace("\x7f", "\u2421"))


def _as_json(last: Answers) -> dict[str, Any]:
    texts = []
    for answer in last.texts:
        whole = answer.prompt + answer.new
        spans = [vars(span) | {"text": whole[span.start : span.end]} for span in answer.trace.spans]
        texts.append({"text": answer.new, "summary": answer.trace.in_words(), **vars(answer.trace), "spans": spans})
    return {"answers": texts, "tokens_per_second": last.tokens_per_second}


def _curve(log: list[dict[str, float]]) -> Figure:
    """The batch loss of every step, and its mean over a hundred."""
    fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    if log:
        ax.semilogy([row["step"] for row in log], [row["loss"] for row in log], color=BLUE, alpha=0.35, label="a batch")
        ax.semilogy([row["step"] for row in log], [row["avg_loss"] for row in log], color=BLUE, label="mean of 100")
        ax.axhline(TARGET, color=RED, linestyle="--", label=f"target {TARGET}")
        ax.legend(frameon=False)
    ax.set(xlabel="optimizer step", ylabel="loss, nats a token", title="How it learnt" if log else "No log was kept")
    ax.spines[["top", "right"]].set_visible(False)
    plt.close(fig)
    return fig


def _card(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><td>{_safe(name)}</td><td>{_safe(fact)}</td></tr>" for name, fact in facts.items())
    return f'<table class="card">{rows}</table>'
