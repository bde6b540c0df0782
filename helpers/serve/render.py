"""Completions as a page shows them and as a program reads them: HTML and JSON."""

import html
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from helpers.serve.engine import Completion, Completions


def as_html(now: Completions) -> str:
    """All texts of a request, marked, with their places; a line about the speed above."""
    speed = f"{now.new_tokens:,} tokens, {now.tokens_per_second:,.0f} per second"
    return f'<p class="verdict" id="speed">{speed}</p>' + "".join(_one(text) for text in now.texts)


def _one(completion: Completion) -> str:
    text, given = completion.prompt + completion.text, len(completion.prompt)
    trace = completion.trace
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
    return f'{verdict}<div class="completion" dir="auto">{"".join(parts)}</div>{listed}'


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


def as_json(last: Completions) -> dict[str, Any]:
    """The same for a program: texts, a sentence about each, and what is recited and found with its places."""
    texts = []
    for completion in last.texts:
        whole, trace = completion.prompt + completion.text, completion.trace
        spans = [vars(span) | {"text": whole[span.start : span.end]} for span in trace.spans]
        texts.append({"text": completion.text, "summary": trace.in_words(), **vars(trace), "spans": spans})
    return {"completions": texts, "tokens_per_second": last.tokens_per_second}


def card_html(facts: Mapping[str, str]) -> str:
    """A table of two columns."""
    rows = "".join(f"<tr><td>{_safe(name)}</td><td>{_safe(fact)}</td></tr>" for name, fact in facts.items())
    return f'<table class="card">{rows}</table>'
