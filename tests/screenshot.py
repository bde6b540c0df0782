"""The picture of the page in README: `python -m tests.screenshot` serves the demo run and writes data/runs/page.png.

`make run-all` comes first; it needs Chromium or Chrome.
"""

import io
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from helpers.base.files import ROOT, runs_folder

PROMPT, TOKENS = "The bell has lost its tongue", 60


def ask(page: Page, address: str) -> bytes:
    """The page with an answer on it, as PNG."""
    page.goto(address)
    page.locator("#prompt textarea").fill(PROMPT)
    page.locator("#new_tokens input[type=number]").fill(str(TOKENS))
    page.locator("#write").click()
    page.get_by_text(f"{TOKENS} tokens,").wait_for()
    page.wait_for_timeout(1000)  # until nothing moves
    return page.screenshot(full_page=True)


def photograph(address: str, target: Path) -> None:
    """The page at `address` into a file, in 64 colours, which its few need."""
    browsers = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in browsers if (path := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        picture = ask(browser.new_page(viewport={"width": 1120, "height": 700}), address)
        browser.close()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(64).save(target, optimize=True)


if __name__ == "__main__":
    line = [sys.executable, "-m", "helpers", "demo", "--run", str(runs_folder("demo") / "gpt"), "--port", "7897"]
    server = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        photograph(server.stdout.readline().split()[0], ROOT / "data/runs/page.png")
    finally:
        server.terminate()
        server.wait()
