"""Serving: completions repeat, are marked rightly, and nothing that is asked breaks it; the page in a real browser."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers.base.files import ROOT, imported, write_json
from helpers.checkpoint import CheckpointError, save_checkpoint
from helpers.config import PROFILES, TARGET, GPTConfig
from helpers.data import load_corpus
from helpers.generate import Decoder, Sampling
from helpers.model import GPT
from helpers.serve.engine import Completion, Completions, Engine
from helpers.serve.healing import heal
from helpers.serve.page import LOOK, QUIET, _controls, _curve, build_app
from helpers.serve.render import as_html, as_json
from helpers.serve.request import Limits, Request, RequestError
from helpers.serve.space import APP, NEEDED, write_space
from tests.commands import command
from tests.conftest import tiny_gpt

HOSTILE = [
    " " * 50,
    "\x00\x01\x1b[31m\x7f",
    "<|endoftext|>",
    "<script>alert(1)</script><img src=x onerror=alert(1)> ${7*7} {{7*7}}",
    "שלום עולם مرحبا",
    "🙂👩‍👩‍👧‍👦",
    "\ud800",
]
REFUSED = [
    ({"prompt": ""}, "empty"),
    ({"prompt": None}, "empty"),
    ({"prompt": "x" * 100_000}, "100,000 characters; 4,000 are the limit"),
    ({"prompt": "🙂" * 100}, "this model reads 64 at most"),
    ({"new_tokens": -1}, "max new tokens"),
    ({"new_tokens": 10**6}, "from 1 to 512"),
    ({"new_tokens": 1.5}, "whole number"),
    ({"samples": 5}, "from 1 to 4"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": float("nan")}, "temperature"),
    ({"temperature": None}, "temperature"),
    ({"temperature": "hot"}, "not hot"),
    ({"top_k": -1}, "top-k"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": float("inf")}, "top-p"),
    ({"repetition_penalty": float("nan")}, "repetition penalty"),
    ({"seed": -5}, "seed"),
    ({"seed": float("nan")}, "seed"),
    ({"weights": "int4"}, "int4 weights on cpu are not served here"),
    ({"device": "toaster"}, "weights on toaster are not served"),
]


@pytest.fixture(scope="module")
def run(gpt2, sample, tmp_path_factory) -> Path:
    """The folder of a run whose model knows nothing, quickly."""
    tokenizer, folder = gpt2.restricted_to(sample), tmp_path_factory.mktemp("run")
    corpus = load_corpus("sample")
    meta = {"window": 64, "rows": tokenizer.kept_ids, "corpus": "sample", "sha256": corpus.sha256, "excerpt": None}
    model = tiny_gpt(seed=2, scale=3.0, vocab_size=tokenizer.n_vocab, block_size=64)
    save_checkpoint(folder / "best", model, {**meta, "step": 7, "seed": 1337, "recipe": "own"})
    (folder / "log.csv").write_text("step,loss,avg_loss,best_loss,lr\n1,5.0,5.0,5.0,0.1\n2,4.0,4.5,4.0,0.1\n")
    write_json(folder / "metrics.json", {"loss_grid": 0.0123, "recall_50_50": 0.5, "longest_recitation": 1234})
    return folder


@pytest.fixture(scope="module")
def engine(run) -> Engine:
    return Engine(run)


def last(engine: Engine, prompt: str = "The bell", **request) -> Completions:
    *_, completions = engine.completions(Request(prompt, **{"new_tokens": 30, **request}))
    return completions


def completed(engine: Engine, prompt: str, new: str) -> Completion:
    pieces = engine.tokenizer.pieces(engine.tokenizer.encode(new))
    return Completion(prompt, engine.index.trace(prompt, pieces), pieces)


def texts(completions: Completions) -> list[str]:
    return [text.text for text in completions.texts]


def test_the_same_request_gives_the_same_texts_whatever_runs_beside_it(engine):
    alone = texts(last(engine, samples=3, seed=5))
    found, threads = {}, []
    for n in range(4):
        thread = threading.Thread(target=lambda n=n: found.update({n: texts(last(engine, samples=3, seed=5 + n))}))
        threads.append(thread)
        thread.start()
    [thread.join() for thread in threads]
    assert found[0] == alone
    assert found[1][0] == alone[1]  # sample n draws from the seed + n
    assert len({tuple(t) for t in found.values()}) == 4


def test_one_text_alone_is_drafted_from_the_book_and_stays_the_same(engine, sample, monkeypatch):
    monkeypatch.setattr(
        "helpers.serve.engine.heal", lambda _, ids, *__: ids
    )  # a model that knows nothing draws letters
    widths, opening = [], sample[: sample.index("\n", 80)]
    hook = engine.model("fp32", "cpu").register_forward_pre_hook(lambda _, args: widths.append(args[0].size(1)))
    alone = texts(last(engine, opening, samples=1, seed=5))
    hook.remove()
    assert widths[0] == 1 + 15  # the prompt's last token and what follows in the book
    assert alone == texts(last(engine, opening, samples=2, seed=5))[:1]  # two texts read no drafts


def test_completions_grow_and_the_last_is_complete(engine):
    steps = [(a.new_tokens, a.texts[0].text) for a in engine.completions(Request("The bell", new_tokens=40), every=0)]
    assert [n for n, _ in steps] == list(range(1, 41))
    assert all(after.startswith(before) for (_, before), (_, after) in pairwise(steps))


def test_verbatim_words_are_marked_with_their_place(engine, sample):
    line = "The bell has lost its tongue, and so have I."
    completion = completed(engine, "Well: ", line + " <b>&")
    page = as_html(Completions([completion]))
    number = sample[: sample.index(line)].count("\n") + 1
    assert re.search(rf'<mark title="\w+, from line {number}">[^<]*has lost its tongue, and so have I\.</mark>', page)
    assert " &lt;b&gt;&amp;" in page
    assert "<b>&" not in page
    assert 0.8 < completion.trace.found < 1
    assert f"{math.floor(100 * completion.trace.found)}% found in the book in 1 piece of" in page


def test_a_recitation_is_one_stretch_on_the_page(engine, sample):
    page = as_html(Completions([completed(engine, sample[:60], sample[60:120])]))  # the prompt ends inside a word
    new = sample[60:120].replace("&", "&amp;")
    (mark,) = re.findall(r"<mark [^>]*>(.*?)</mark>", page, flags=re.S)
    assert mark == f'<span class="given">{sample[:60]}</span><span class="recited">{new}</span>'
    assert re.search(r"<b>all \d+ tokens recited</b>", page)


def test_a_collage_is_not_called_recited_by_page_or_api(engine):
    hound = "ound.\n\nHOLLIS:\nThe rain has put the lanterns out by twos,\nAnd every honest man lies deaf in wool."
    completion = completed(engine, engine.book[:60], hound)
    page, (found,) = as_html(Completions([completion])), as_json(Completions([completion]))["completions"]
    assert page.count("<mark") == 3
    assert 'class="recited"' not in page
    assert f"<b>0 of {found['new_tokens']} tokens recited; 100% found in the book in 2 pieces, the longest of " in page
    assert (found["found"], found["pieces"], found["recited_tokens"], found["prompt_in_book"]) == (1.0, 2, 0, True)
    assert found["summary"] in page
    assert "".join(span["text"] for span in found["spans"]) == engine.book[:60] + hound
    assert "verbatim" not in page + json.dumps(found)


def test_recited_tokens_are_those_that_the_model_sampled(engine, sample, monkeypatch):
    """A model that knows the scene, asked with a prompt that ends inside a token."""
    cut, index = sample[:60], engine.index
    true = index.tokens[len(engine.tokenizer.encode(sample[: sample.index(" put the lanterns")])) :]
    chosen = iter([*engine.tokenizer.encode("as"), *true])
    monkeypatch.setattr("helpers.serve.engine.heal", lambda _, ids, *__: ids)
    monkeypatch.setattr(Decoder, "step", lambda *_, **__: {0: [next(chosen)]})
    (completion,) = last(engine, cut, new_tokens=12).texts
    assert (completion.trace.recited_tokens, completion.trace.new_tokens) == (12, 12)
    assert engine.book.startswith(cut + completion.text)


@pytest.mark.parametrize("prompt", HOSTILE)
def test_any_text_is_a_prompt_and_shows_as_text(engine, prompt):
    completions = last(engine, prompt, new_tokens=5)
    page = as_html(completions)
    assert "<script" not in page
    assert "<img" not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", page)
    assert completions.new_tokens == 5


@pytest.mark.parametrize(("request_", "words"), REFUSED, ids=[str(r)[:40] for r, _ in REFUSED])
def test_what_makes_no_sense_is_said_and_the_next_request_works(engine, request_, words):
    with pytest.raises(RequestError) as caught:
        last(engine, **request_)
    assert words in str(caught.value)
    assert last(engine).new_tokens == 30


@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
def test_every_format_answers(engine, weights):
    assert len(texts(last(engine, weights=weights, samples=2))) == 2


class Reader(torch.nn.Module):
    """A model that knows one text in tokens, and what comes behind it nowhere else."""

    def __init__(self, book: list[int], vocabulary: int) -> None:
        super().__init__()
        self.book, self.vocabulary, self.config = book, vocabulary, SimpleNamespace(block_size=1024)

    def new_cache(self, *_):
        return SimpleNamespace(k=torch.zeros(1), read=[])

    def forward(self, idx, cache):
        cache.read += idx[0].tolist()
        known = cache.read == self.book[: len(cache.read)]
        scores = torch.zeros(*idx.shape, self.vocabulary)
        scores[0, -1, self.book[len(cache.read)]] = 20.0 * known
        return scores, None


@pytest.mark.parametrize("sampling", [Sampling(0), Sampling(3.0), Sampling(1.0, top_k=5, repetition_penalty=9.0)])
def test_a_prompt_cut_anywhere_is_healed_to_the_books_own_tokens(engine, sampling):
    tokens, tokenizer = engine.index.tokens, engine.tokenizer
    reader, g = Reader(tokens, tokenizer.n_vocab), torch.Generator().manual_seed(0)
    for cut in range(40, 160):
        healed = heal(reader, tokenizer.encode(engine.book[:cut]), engine.vocabulary, sampling, g)
        assert healed == tokens[: len(healed)]
        assert tokenizer.decode(healed).startswith(engine.book[:cut])
        assert not tokenizer.decode(healed[:-1]).startswith(engine.book[:cut]), "and no further than that"


def test_a_prompt_that_healing_would_lengthen_beyond_the_context_stays(engine):
    """A model that writes letter by letter what is missing: three tokens back are 36 of its own."""

    class Speller(GPT):
        def forward(self, idx, cache):
            super().forward(idx, cache=cache)
            return torch.tensor([-float(len(token)) for token in engine.vocabulary]).expand(*idx.shape, -1), None

    speller = Speller(GPTConfig(block_size=128, vocab_size=engine.tokenizer.n_vocab, n_layer=1, n_head=1, n_embd=4))
    long = max(range(len(engine.vocabulary)), key=lambda i: len(engine.vocabulary[i]))
    for length in (80, 128):
        prompt = (engine.tokenizer.encode(engine.book[:200]) * 4)[: length - 3] + 3 * [long]
        healed = heal(speller, prompt, engine.vocabulary, Sampling(0), None)
        assert (healed == prompt) == (length == 128)


@pytest.mark.parametrize("prompt", [*HOSTILE, "The bell h", "T", "naïve caf", "é"])
def test_what_heals_keeps_the_prompt_and_adds_whole_characters(engine, prompt):
    ids, model = engine.tokenizer.encode(prompt), engine.model("fp32", "cpu")
    before = b"".join(engine.vocabulary[i] for i in ids)
    for seed in range(5):
        healed = heal(model, ids, engine.vocabulary, Sampling(1.0), torch.Generator().manual_seed(seed))
        text = b"".join(engine.vocabulary[i] for i in healed)
        assert text.startswith(before)
        text[len(before) :].decode()


def test_what_healing_adds_comes_with_the_first_new_token(engine, monkeypatch):
    prompt = "The bell has lost its tong"
    whole = engine.tokenizer.encode("The bell has lost its tongue")
    monkeypatch.setattr("helpers.serve.engine.heal", lambda *_: whole)
    (text,) = last(engine, prompt, new_tokens=5).texts
    assert len(text.new) == 5
    assert text.new[0].startswith("ue")
    assert text.trace.new_tokens == 5


def test_the_card_says_what_is_known(engine):
    card = engine.card()
    model = engine.model("fp32", "cpu")
    assert card["parameters"] == f"{sum(p.numel() for p in model.parameters()):,}"
    assert "0.0123" in card["whole-corpus loss, on the grid"]
    assert len(engine.log()) == 2
    assert {is_in for _, is_in in engine.examples()} == {True, False}


def test_page_and_api_start_at_the_defaults_of_a_request(engine, address):
    from gradio_client import Client

    (endpoint,) = Client(address, verbose=False).view_api(return_format="dict")["named_endpoints"].values()
    offered = {p["parameter_name"]: p["parameter_default"] for p in endpoint["parameters"]}
    defaults = vars(Request("The bell"))
    assert offered.keys() == defaults.keys()
    assert all(offered[name] == default for name, default in defaults.items() if name != "prompt")
    assert [control.value for control in _controls(engine)] == [defaults[name] for name in defaults if name != "prompt"]


def test_the_curve_shows_the_series_target():
    log = [{"step": 1, "loss": 1.0, "avg_loss": 1.0, "best_loss": 1.0}]
    assert f"target {TARGET}" in [text.get_text() for text in _curve(log).axes[0].get_legend().get_texts()]
    assert {profile.target for profile in PROFILES.values()} == {TARGET}


def test_without_a_checkpoint_or_with_another_book_it_says_what_to_do(run, tmp_path):
    with pytest.raises(CheckpointError, match=r"make run-all.*python -m helpers train"):
        Engine(tmp_path / "none")
    shutil.copytree(run, tmp_path / "run")
    meta = json.loads((tmp_path / "run/best/meta.json").read_text())
    write_json(tmp_path / "run/best/meta.json", {**meta, "sha256": "0" * 64})
    with pytest.raises(RuntimeError, match="learnt another text"):
        Engine(tmp_path / "run")
    assert re.fullmatch(r"error: no checkpoint in .*\n", refusal("demo", "--run", str(tmp_path / "none")))
    (tmp_path / "other.txt").write_text("another book")
    for program in ("demo", "space"):
        message = refusal(program, "--run", str(run), "--corpus", str(tmp_path / "other.txt"))
        assert re.fullmatch(r"error: the checkpoint learnt another text than .*other.txt: .*\n", message)


def refusal(*args: str) -> str:
    """What `python -m helpers` says when it refuses."""
    done = command(*args)
    assert done.returncode == 1
    return done.stderr


@pytest.fixture(scope="module")
def address(engine):
    """The page of the tiny model, with room for one request and one more."""
    app = build_app(Engine(engine.folder, Limits(at_once=1, waiting=1)))
    _, url, _ = app.launch(**LOOK, **QUIET, prevent_thread_lock=True)
    yield url
    app.close()


def test_the_api_answers_and_says_what_is_wrong(address):
    from gradio_client import Client

    client = Client(address, verbose=False)
    ask = dict(api_name="/write", new_tokens=20, samples=2, seed=3)
    found = client.predict("The bell has", **ask)
    assert found == {**client.predict("The bell has", **ask), "tokens_per_second": found["tokens_per_second"]}
    assert len(found["completions"]) == 2
    for request, words in REFUSED:
        if any(isinstance(value, float) and not math.isfinite(value) for value in request.values()):
            continue  # JSON has no such numbers
        with pytest.raises(Exception, match=words) as caught:
            client.predict(**{"prompt": "x", "api_name": "/write", **request})
        assert "Traceback" not in str(caught.value)
    assert len(client.predict("The bell has", **ask)["completions"]) == 2


def test_more_requests_than_there_is_room_for_are_told_so(address):
    from gradio_client import Client

    clients = [Client(address, verbose=False) for _ in range(6)]
    jobs = [c.submit("The bell", new_tokens=512, samples=4, seed=n, api_name="/write") for n, c in enumerate(clients)]
    errors = [job.exception(timeout=120) for job in jobs]
    found = {n: jobs[n].result()["completions"][0]["text"] for n, error in enumerate(errors) if error is None}
    assert 1 <= len(found) < 6
    assert all("full" in str(error).lower() for error in errors if error is not None)
    alone = {n: clients[0].predict("The bell", new_tokens=512, samples=4, seed=n, api_name="/write") for n in found}
    assert found == {n: reply["completions"][0]["text"] for n, reply in alone.items()}  # nobody gets another's


def test_a_space_holds_all_it_needs_and_no_more(run, sample, tmp_path):
    folder = write_space(run, sample, tmp_path / "space")
    files = {path.relative_to(folder) for path in (folder / "helpers").rglob("*.py")}
    assert files == imported(APP)
    names = {path.relative_to("helpers").with_suffix("").as_posix() for path in files}
    assert {"app", "serve/engine", "serve/page", "model"} <= names
    assert not {"interop", "tools/execute", "__main__"} & names
    pins = (folder / "requirements.txt").read_text().split()
    assert [pin.split("==")[0] for pin in pins] == list(NEEDED)
    assert set(pins) <= {line.split()[0] for line in (ROOT / "requirements.txt").read_text().splitlines() if line}
    assert re.match(
        r"---\n(.*\n)*sdk: gradio\nsdk_version: [\d.]+\n(.*\n)*app_file: app.py\n", (folder / "README.md").read_text()
    )
    (folder / "run/stale.txt").write_text("of an earlier run")
    (folder / ".git").mkdir()
    assert write_space(run, sample, folder) == folder  # again, over the old one
    assert (folder / ".git").is_dir(), "a Space is a repository"
    assert not (folder / "run/stale.txt").exists()


def test_a_space_takes_no_place_of_something_else(run, sample, tmp_path):
    for name in ("novel.txt", "app.py"):
        mine = tmp_path / name.split(".")[0] / name
        mine.parent.mkdir()
        mine.write_text("years of work")
        with pytest.raises(FileExistsError, match="not empty"):
            write_space(run, sample, mine.parent)
        assert mine.read_text() == "years of work"


def test_a_space_answers_in_a_place_of_its_own(run, sample, tmp_path):
    folder = write_space(run, sample, tmp_path / "space")
    shutil.move(folder, tmp_path / "elsewhere")
    script = (
        "import sys, json; sys.argv = ['app.py']; sys.path.insert(0, '.')\n"
        "import gradio; from gradio_client import Client\n"
        "launch = gradio.Blocks.launch\n"
        "def ask(app, **kw):\n"
        "    url = launch(app, **kw, prevent_thread_lock=True)[1]\n"
        "    print(json.dumps(Client(url, verbose=False).predict('The bell', new_tokens=9, api_name='/write')))\n"
        "gradio.Blocks.launch = ask\n"
        "exec(compile(open('app.py').read(), 'app.py', 'exec'), {'__file__': 'app.py', '__name__': '__main__'})\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Running on local URL" in done.stdout, "whoever starts it wants to know where it is"
    reply = json.loads(done.stdout.splitlines()[-1])
    assert reply["completions"][0]["text"]


BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def browser():
    """One headless browser for all; each test has a page of its own, as unknown to it as to a new visitor."""
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    if BROWSER is None:
        pytest.skip("no Chromium or Chrome is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(address, browser):
    """The page in a headless browser, with what it asked for and complained of."""
    visit = browser.new_context()
    page = visit.new_page()
    page.asked, page.complaints = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
    page.goto(address)
    page.locator("#prompt textarea").wait_for()
    yield page
    visit.close()
    assert all(url.startswith((address, "data:", "blob:")) for url in page.asked), "a request left the machine"
    assert page.complaints == []


COMPLETE = """([tokens, samples]) => document.querySelectorAll("#output .completion").length === samples
    && document.querySelector("#speed").textContent.startsWith(tokens + " tokens,")"""


def write(page, tokens: int, prompt: str | None = None, samples: int = 1) -> list[str]:
    """The prompt with each of its completions, when all are whole; four cut short may have as many tokens as one."""
    if prompt is not None:
        page.locator("#prompt textarea").fill(prompt)
    page.locator("#new_tokens input[type=number]").fill(str(tokens))
    page.locator("#samples input[type=number]").fill(str(samples))
    page.locator("#write").click()
    page.wait_for_function(COMPLETE, arg=[str(tokens * samples), samples])
    return page.locator("#output .completion").all_inner_texts()


def test_a_prompt_is_answered_and_the_seed_and_sliders_decide(page):
    markup = "<b>bold</b> & <script>document.title='taken'</script>"
    (first,) = write(page, 40, markup)
    assert first.startswith(markup)
    write(page, 41)
    assert write(page, 40) == [first]
    page.locator("#seed input").fill("7")
    page.locator("#seed input").press("Tab")
    (other,) = write(page, 39)
    assert not first.startswith(other)
    page.locator("#temperature input[type=number]").fill("0")
    one, two = write(page, 39, samples=2)
    assert one == two  # greedy
    assert page.title() == "GPT-2 by heart"


def test_an_example_fills_in_and_the_second_tab_shows_the_model(page):
    page.get_by_text("not in the book: To be, or not to be,").click()
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'To be, or not to be,'")
    page.get_by_role("tab", name="The model").click()
    page.locator("#curve img").wait_for()
    assert "whole-corpus loss" in page.locator("#card").inner_text()


@pytest.fixture
def slow_steps(monkeypatch):
    """A model that is slow enough to be stopped, 10 ms per step at least; a number for each step so far."""
    steps, step = [], Decoder.step

    def slow_step(decoder, most):
        steps.append(len(steps))
        time.sleep(0.01)
        return step(decoder, most)

    monkeypatch.setattr(Decoder, "step", slow_step)
    return steps


@pytest.mark.usefixtures("slow_steps")
def test_stop_stops(page):
    page.locator("#prompt textarea").fill("The bell")
    page.locator("#new_tokens input[type=number]").fill("512")
    page.locator("#samples input[type=number]").fill("4")
    page.locator("#write").click()
    page.locator("#output .completion").first.wait_for()
    page.locator("#stop").click()
    page.wait_for_timeout(300)
    stopped = page.locator("#output").inner_text()
    page.wait_for_timeout(700)
    assert page.locator("#output").inner_text() == stopped
    assert "2,048 tokens," not in stopped
    assert write(page, 12)  # there is room again


def test_a_bad_request_is_a_message_on_the_page(page):
    page.locator("#prompt textarea").fill("")
    page.locator("#write").click()
    page.get_by_text("The prompt is empty").first.wait_for()
    assert "Traceback" not in page.content()
    assert write(page, 12, "The bell")


def test_a_closed_browser_stops_its_generation(page, slow_steps):
    page.locator("#prompt textarea").fill("The bell")
    page.locator("#new_tokens input[type=number]").fill("512")
    page.locator("#write").click()
    page.locator("#output .completion").first.wait_for()
    page.close()
    before = -1
    while len(slow_steps) > before:  # a server learns of it when it next writes to the closed connection
        before = len(slow_steps)
        time.sleep(0.5)
    assert len(slow_steps) < 512
