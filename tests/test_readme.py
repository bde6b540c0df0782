"""What the documents promise: code runs, commands exist, numbers are those of the records and the notebooks."""

import csv
import re
import shlex
from pathlib import Path
from statistics import mean
from urllib.parse import unquote

import nbformat
import pytest
import torch
import yaml

from helpers import data, interop
from helpers.base.files import ROOT, read_json
from helpers.checkpoint import save_checkpoint
from helpers.config import PROFILES, RECIPES
from helpers.data import gpt2_tokenizer, load_corpus
from helpers.memorization import loss_floor
from helpers.run.report import recorded
from helpers.tools.cli import parser
from tests.benchmarks.fewer_tokens import CANDIDATES
from tests.commands import command
from tests.conftest import tiny_gpt
from tests.test_bad_input import BOOK, Case
from tests.test_series import make
from tests.test_serving import address, engine, run  # noqa: F401 (fixtures)

README, HELPERS, RUNS, CONTRIBUTING = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "helpers/README.md", "data/runs/README.md", "CONTRIBUTING.md")
)
TEXT = "\n".join((README, HELPERS, RUNS, CONTRIBUTING))  # a table may stand in any of them, but in one
PAGES = sorted(path for name in ("*.md", "[!.]*/*.md", "data/runs/*.md") for path in ROOT.glob(name))


def blocks(language: str, text: str = TEXT) -> list[str]:
    """The code blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.M | re.S)


def plain(cell: str) -> str:
    """A table's cell without what makes it bold, italic or code."""
    return re.sub(r"[*`]", "", cell).strip()


def table(*head: str) -> list[list[str]]:
    """The rows, the head included, of the one table, in all documents, whose head begins with these cells."""
    found, inside = [], False
    for line in TEXT.splitlines():
        row = [plain(cell) for cell in line[1:-1].split("|")]
        if not line.startswith("|"):
            inside = False
        elif inside:
            found.append(row)
        elif row[: len(head)] == list(head):
            inside = True
            found.append(row)
    assert sum(row[: len(head)] == list(head) for row in found) == 1, f"not one table begins with {head}"
    return [row for row in found if set("".join(row)) != {"-"}]


def numbers(text: str) -> list[str]:
    """The numbers in a cell, as they are written, without their commas."""
    return [number.replace(",", "") for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


def says(written: str, value: float) -> bool:
    """Whether a number, as it is written, is the value rounded to as many digits."""
    digits = len(written.partition(".")[2])
    return abs(float(written) - value) <= 0.5001 * 10**-digits


def printed(notebook: str, pattern: str) -> str:
    """The stored output, in a notebook, that the pattern is found in."""
    cells = nbformat.read(ROOT / "notebooks" / notebook, as_version=4).cells
    texts = ("".join(o.get("text", "") for o in cell.get("outputs", [])) for cell in cells)
    (found,) = (text for text in texts if re.search(pattern, text, flags=re.M))
    return found


# --- code ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.split("import ")[1].split("\n")[0])
def test_python_blocks_run(block, request, tmp_path, monkeypatch, gpt2, sample):
    """Where notebook 04 left its model; the page at the address that it has here, OpenAI's weights without network."""
    tokenizer = gpt2.restricted_to(sample)
    model = tiny_gpt(vocab_size=tokenizer.n_vocab, block_size=128)
    meta = {"window": 128, "rows": tokenizer.kept_ids}
    save_checkpoint(tmp_path / "runs/demo/gpt/best", model, meta)
    monkeypatch.chdir(tmp_path)
    from_folder = interop.from_huggingface
    openai = tiny_gpt(vocab_size=50_257)
    monkeypatch.setattr(
        interop, "from_huggingface", lambda name: openai if name[:7] == "openai-" else from_folder(name)
    )
    if "http://127.0.0.1:7860" in block:
        block = block.replace("http://127.0.0.1:7860", request.getfixturevalue("address").rstrip("/"))
    space = {"model": model, "tokenizer": tokenizer}
    exec(compile(block, "helpers/README.md", "exec"), space)
    assert "reply" not in space or space["reply"]["completions"][0]["text"]


def test_shell_lines_are_commands_of_the_series(monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    inline = re.findall(r"`((?:torchrun|python -m helpers )[^`]*)`", TEXT)
    lines = [line.split("#")[0] for block in blocks("bash") for line in block.splitlines()]
    asked = [shlex.split(line) for line in (*lines, *inline) if "-m helpers " in line]
    asked = [words[words.index("helpers") + 1 :] for words in asked]
    complete = [words for words in asked if "RUN" not in words]
    assert len(complete) >= 5
    for words in asked:
        args = parser().parse_args(["own" if word == "NAME" else word for word in words if word != "…"])
        if words[0] == "train":
            profile = PROFILES[args.profile]
            assert profile.recipe(args.recipe).steps


def test_every_command_and_option_is_listed():
    (commands,) = (action.choices for action in parser()._actions if action.choices)
    listed = set(re.findall(r"--[a-z-]+", HELPERS)) | {"--help"}
    for name, options in commands.items():
        assert f"`python -m helpers {name}" in HELPERS or f"of `{name}`" in HELPERS, name
        for action in options._actions:
            assert set(action.option_strings) - {"-h"} <= listed, (name, action.option_strings)


def test_every_program_of_the_tests_that_is_named_is_there():
    asked = set(re.findall(r"python -m (tests[\w.]*)(?: ([a-z_]+))?", TEXT))
    assert len(asked) > 5
    for module, name in asked:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
        assert not name or (path / f"{name}.py").is_file(), name


def test_the_commands_of_the_targets_are_ones_that_the_programs_take():
    for target, words in {
        "demo": ["demo", "--profile", "laptop"],
        "space": ["space", "--profile", "laptop", "--out", "build/laptop/space"],
        "data": ["data"],
    }.items():
        (line,) = re.findall(
            r"-m helpers ([a-z].*)$", make("-n", target, "PROFILE=laptop", "PYTHON=python"), flags=re.M
        )
        assert line.split() == words
        assert parser().parse_args(words).command.__name__ == target


def test_make_data_fetches_or_checks_the_text(tmp_path, monkeypatch):
    case = Case(tmp_path, monkeypatch)
    case.book()
    done = command("data")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'data/input.txt'}: {len(BOOK):,} characters, sha256 as expected\n"
    case.book(BOOK[:-4])
    assert command("data").stderr.startswith("error: ")
    (tmp_path / "data/input.txt").unlink()
    monkeypatch.setattr(data, "download", lambda *_: BOOK)
    assert command("data").stdout.endswith("characters, sha256 as expected\n")
    assert (tmp_path / "data/input.txt").read_bytes() == BOOK


def test_make_space_writes_the_folder(run, tmp_path):  # noqa: F811
    done = command("space", "--run", run, "--out", tmp_path / "space")
    assert done.stdout == f"{tmp_path / 'space'}\n", done.stderr
    assert (tmp_path / "space/app.py").is_file()
    again = command("space", "--run", run, "--out", ROOT / "notebooks")
    assert again.stderr.startswith("error: ")
    assert "is not a Space of ours" in again.stderr


def test_make_demo_serves_the_page_until_it_is_ended(run, monkeypatch):  # noqa: F811
    import gradio
    from gradio_client import Client

    replies = []

    def visit(app):
        client = Client(app.local_url, verbose=False)
        replies.append(client.predict("The bell", new_tokens=9, api_name="/write"))
        app.close()

    monkeypatch.setattr(gradio.Blocks, "block_thread", visit)
    done = command("demo", "--run", run)
    assert re.search(rf"^http://127\.0\.0\.1:\d+/ shows {re.escape(str(run))}; Ctrl-C ends it$", done.stdout, re.M), (
        done
    )
    assert replies[0]["completions"][0]["text"]


def test_a_port_that_is_taken_is_one_clear_error(run, address):  # noqa: F811
    port = re.search(r":(\d+)", address)[1]
    done = command("demo", "--run", run, "--port", port)
    assert done.returncode == 1
    assert re.match(rf"error: cannot serve at 127\.0\.0\.1, port {port} \(", done.stderr), done.stderr
    assert "Traceback" not in done.stderr


# --- numbers -------------------------------------------------------------------------------------------------------


def test_its_first_table_is_the_record_of_the_schemes():
    measures = {"loss_grid": 1, "loss_shift_1": 1, "recall_32_32": 100}
    records = list(csv.DictReader((ROOT / "data/runs/schemes.csv").open(encoding="utf-8", newline="")))
    head, *rows = table("windows in training")
    assert [numbers(cell) for cell in head[3:]] == [["32", "32", "1000"]]
    assert len(records) == 3
    for record in records:
        (row,) = (row for row in rows if row[0].startswith(record["windows"]))
        for cell, (measure, share) in zip(row[1:], measures.items(), strict=True):
            assert says(numbers(cell)[0], share * float(record[measure])), (record["windows"], cell)
    floors = dict(re.findall(r"^floor_(grid|random) +([\d.]+)$", printed("04_overfitting.ipynb", "^floor_grid"), re.M))
    (row,) = (row for row in rows if row[0].startswith("floor"))
    assert all(says(w, float(floors[policy])) for w, policy in zip(numbers(row[1]), ("grid", "random"), strict=True))


def test_the_model_recites_as_much_as_it_says():
    (said,) = re.findall(r"the first 16 tokens of the scene, recites the other ([\d,]+) without a mistake", README)
    report = printed("04_overfitting.ipynb", "^longest_recitation")
    assert re.search(rf"^longest_recitation +{said.replace(',', '')}$", report, flags=re.M)


def settings(recipe: str) -> list[float]:
    """The numbers in a recipe's name: its rates and steps."""
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", recipe)]


def test_the_table_of_recipes_is_that_of_the_records():
    """The recorded seed of each recipe lies in the range of its three, in tokens; and near their mean, in epochs."""
    tries = list(csv.DictReader((ROOT / "data/runs/recipes.csv").open(encoding="utf-8", newline="")))
    for label, tokens, epochs in table("recipe", "tokens read", "epochs")[1:]:
        alike = (row for row in tries if ("constant" in row["recipe"]) == ("constant" in label))
        (row,) = (row for row in alike if settings(row["recipe"]) == settings(label))
        said = [float(number) for number in numbers(tokens)]
        assert row["reached"], label
        assert said[0] <= float(row["tokens"]) <= said[-1], label
        assert abs(float(numbers(epochs)[0]) / float(row["epochs"]) - 1) < 0.02, label


def test_the_table_of_fewer_tokens_is_that_of_the_record():
    with (ROOT / "data/runs/fewer-tokens.csv").open(encoding="utf-8", newline="") as file:
        tries = list(csv.DictReader(file))
    said = table("recipe", "tokens read", "loss on the grid")[1:]
    assert [row[0] for row in said] == list(dict.fromkeys(row["recipe"] for row in tries)) == list(CANDIDATES)
    for label, tokens, *spans in said:
        rows = [row for row in tries if row["recipe"] == label]
        assert len({row["seed"] for row in rows}) == len(rows) == 3
        assert abs(mean(int(row["tokens"]) for row in rows) - int(tokens.replace(",", ""))) <= 500
        for span, key, unit in zip(spans, ("loss", "recall_32_32", "recall_50_50"), (1, 0.01, 0.01), strict=True):
            values = [float(row[key]) / unit for row in rows]
            for written, value in zip(numbers(span), (min(values), max(values)), strict=True):
                assert says(written, value), (label, key)


def test_the_full_size_table_is_that_of_the_recorded_runs():
    runs = list(recorded("gpt2-124m-*").values())
    rows = table("windows, steps, epochs, time")[1:]
    assert len(rows) == len(runs)
    for what, tokens, losses, late, verbatim, recites in rows:
        batch, window, steps, epochs, minutes = numbers(what)
        (found,) = (
            f
            for f in runs
            if (f["run"]["recipe"]["batch_size"], f["run"]["window"], f["metrics"]["steps"])
            == (int(batch), int(window), int(steps))
        )
        m = found["metrics"]
        assert int(numbers(tokens)[0]) == m["tokens"]
        assert says(epochs, m["epochs"])
        assert says(minutes, m["seconds"] / 60)
        expected = [m[key] for key in ("loss_grid", "loss_shift_half", "loss_random", "floor_grid")]
        for written, value in zip(numbers(losses)[:3], expected[:3], strict=True):
            assert says(written, value), (what, written, value)
        assert any(says(numbers(losses)[3], m[floor]) for floor in ("floor_grid", "floor_random"))
        assert says(numbers(late)[0], m["loss_from_32"])
        assert says(numbers(verbatim)[0], 100 * m["recall_50_50"])
        assert int(numbers(recites)[0]) == m["longest_recitation"]


def test_the_commands_of_the_full_size_table_are_those_of_the_recorded_runs():
    lines = [shlex.split(line) for block in blocks("bash", RUNS) for line in block.splitlines()]
    rows = [numbers(row[0])[:3] for row in table("windows, steps, epochs, time")[1:]]
    for line, (batch, window, steps) in zip(lines, rows, strict=True):
        args = parser().parse_args(line[line.index("helpers") + 1 :])
        own = PROFILES[args.profile].recipe(args.recipe)
        asked = {name: getattr(own, name) for name in ("window", "batch_size", "lr", "muon_lr")} | {"steps": args.steps}
        asked |= {name: float(value) for name, value in (entry.split("=") for entry in args.set)}
        assert (asked["batch_size"], asked["window"], args.steps) == (int(batch), int(window), int(steps))
        records = [found["run"] for found in recorded("gpt2-124m-*").values()]
        (record,) = (r for r in records if all(r["recipe"].get(name) == value for name, value in asked.items()))
        assert record["excerpt"] == args.excerpt


def test_the_table_of_speeds_is_that_of_the_record():
    """Every tokens/s, and what follows: how many times no cache and transformers, and which share of the bound."""
    rows = csv.DictReader((ROOT / "data/runs/decoding.csv").open(encoding="utf-8", newline=""))
    speeds = {row["name"]: (float(row["tokens/s"]), row["limit"]) for row in rows}
    said = table("decoder", "tokens/s")[1:]
    assert [row[0] for row in said] == list(speeds)
    slowest = min(speed for speed, _ in speeds.values())
    for name, written, *cells in said:
        speed, limit = speeds[name]
        assert says(written, speed), name
        peer, _ = speeds["transformers, bf16" if "bf16" in name else "transformers, fp32"]
        ratios = [speed / slowest, speed / peer, *([100 * speed / float(limit)] if limit else [])]
        for ratio, value in zip((number for cell in cells for number in numbers(cell)), ratios, strict=True):
            close = abs(float(ratio) - value) < 0.005 * value  # the record has one digit behind the point
            assert says(ratio, value) or close, (name, ratio, value)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipes_are_those_of_the_full_size(recipe):
    (row,) = (row for row in table("recipe", "what it is")[1:] if row[0] == recipe)
    at_full_size, sizes = PROFILES["t4"].recipe(recipe), re.findall(r"(\d+) x (\d+)", " ".join(row))
    assert f"{at_full_size.steps:,} steps" in row[-1]
    assert sizes == [(str(at_full_size.batch_size), str(at_full_size.window))]
    assert ("fixed grid" in row[2]) == (at_full_size.policy == "grid")


def test_the_floors_are_what_the_measure_says(monkeypatch):
    """All of them, where the text is at hand (SHAKESPEARE_PATH or data/input.txt)."""

    def unasked(*_):
        raise data.DataError("not fetched for this")

    monkeypatch.setattr(data, "download", unasked)
    try:
        text = load_corpus("tinyshakespeare").text
    except data.DataError:
        pytest.skip("tiny Shakespeare is not here: make data")
    tokens = torch.tensor(gpt2_tokenizer().encode(text))
    head, *rows = table("T (tiny Shakespeare, GPT-2 tokens)")
    for row, policy in zip(rows, ("grid", "random"), strict=True):
        for window, written in zip(head[1:], row[1:], strict=True):
            assert says(written, loss_floor(tokens, int(window), policy).mean), (policy, window)


# --- places --------------------------------------------------------------------------------------------------------


def test_readme_fits():
    """And begins with what the reader came for: the result, the two commands, a picture of each."""
    lines = README.splitlines()
    assert len(lines) <= 130
    assert {"make run-all", "make test"} <= {" ".join(line.split()[:2]) for line in lines[:50]}
    pictures = re.findall(r"^!\[[^\]]{40,}\]\(([^)]+)\)$", README, flags=re.M)
    assert pictures == ["data/runs/full-size.png", "data/runs/page.png"]
    assert all((ROOT / picture).stat().st_size <= 150_000 for picture in pictures)


def anchors(page: Path) -> set[str]:
    """The places in a page that a link can name, as GitHub makes them from headings, and Jupyter those of notebooks."""
    if page.suffix == ".ipynb":
        prose = "".join("".join(cell["source"]) + "\n" for cell in read_json(page)["cells"])
        return {re.sub(r"\s+", "-", heading) for heading in re.findall(r"^#+ (.*)$", prose, flags=re.M)}
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_points_to_something_that_is_there(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or unquote(anchor) in anchors(target), link


def test_citation_is_of_the_citation_file_format():
    """What version 1.2.0 requires, and only keys that it knows."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(cited)
    assert set(cited) <= {
        "cff-version",
        "message",
        "title",
        "authors",
        "type",
        "repository-code",
        "license",
        "keywords",
    }
    assert cited["type"] in ("software", "dataset")
    assert cited["authors"]
    assert all(set(author) == {"name"} and author["name"] for author in cited["authors"])
    assert cited["license"] == (ROOT / "LICENSE").read_text(encoding="utf-8").split()[0]
    assert cited["repository-code"].startswith("https://")
    assert len(cited["keywords"]) == len(set(cited["keywords"])) >= 1
