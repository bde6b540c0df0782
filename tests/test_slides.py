"""Slides: whole, without network, and nothing on them runs over the edge of the wall."""

import re
import shutil

import pytest
from nbformat import read

from helpers.base.files import ROOT
from helpers.tools.slides import SIZE, write_slides

SOURCES = sorted((ROOT / "notebooks").glob("*.ipynb"))
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SHOW_ALL = 'Reveal.getCurrentSlide().querySelectorAll(".fragment").forEach(part => part.classList.add("visible"))'
HEIGHT = "[Reveal.getCurrentSlide().scrollHeight, Reveal.getCurrentSlide().scrollWidth]"


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    return {source.stem: write_slides(source, folder) for source in SOURCES}


@pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])
def test_every_cell_says_what_it_is_on_the_slides(source):
    types = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in read(source, as_version=4).cells]
    assert set(types) <= {"slide", "fragment", "notes", "skip"}
    assert types[0] == "slide"
    assert 12 <= types.count("slide") <= 24


def test_slides_fetch_nothing_and_hide_what_draws_a_figure(decks):
    for name, deck in decks.items():
        page = deck.read_text(encoding="utf-8")
        fetched = re.findall(r'(?:src|<link[^>]*href)="([^"]+)"', page)
        local = [link for link in fetched if not link.startswith("data:")]
        assert local
        assert all((deck.parent / link).exists() for link in local), name
        assert "show_figure(" not in re.sub(r"<[^>]+>", "", page)
        assert "colab.research" not in page
        assert "No description has been provided" not in page


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
def test_no_slide_runs_over_its_edge(decks):
    from playwright.sync_api import sync_playwright

    over, width, height = [], *map(int, SIZE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_context(offline=True, viewport={"width": width, "height": height}).new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        for name, deck in decks.items():
            page.goto(deck.as_uri())
            page.wait_for_function("window.Reveal && Reveal.isReady()")
            for number in range(page.evaluate("Reveal.getTotalSlides()")):
                page.evaluate(f"Reveal.slide({number}, 0)")
                page.evaluate(SHOW_ALL)
                high, wide = page.evaluate(HEIGHT)
                if high > height or wide > width:
                    over.append(f"{name}, slide {number + 1}: {high} x {wide}")
        browser.close()
    assert errors == []
    assert over == []
