"""The character baseline of notebook 02 against nanoGPT's CPU recipe, same model size, same machine, same run.

nanoGPT's README trains 4 layers, 4 heads, 128 wide, context 64, batch 12, for 2,000 steps of AdamW (1e-3 falling to
1e-4 on a cosine, 100 steps of warm-up, betas 0.9 and 0.99, weight decay 0.1, clip 1.0, no bias, no dropout) and
publishes a validation loss of 1.88. That recipe is run here in a plain loop, without nanoGPT's evaluations on the
way, so its time is a lower bound. Both are then measured over the whole validation text.
`python -m tests.benchmarks.char_baseline` runs notebook 02's own cells with five seeds and writes
data/runs/char-ablation.csv, which the notebook draws.
"""

import csv
import math
import os
import tempfile
import time
from collections.abc import Iterator

import matplotlib
import nbformat
import torch

from helpers.base.files import ROOT
from helpers.config import PROFILES, GPTConfig
from helpers.data import CharTokenizer, load_corpus
from helpers.memorization import corpus_loss
from helpers.model import GPT
from helpers.runtime import pick_runtime, set_up
from helpers.train import Trainer
from helpers.windows import Windows

SEED = 1337
SEEDS = (1, 2, 3, 4, 5)  # of the record
COLUMNS = ("corpus", "embedding_std", "variant", "seed", "training_loss", "validation_loss")


def nanogpt(train: torch.Tensor, n_vocab: int, steps: int = 2000) -> tuple[GPT, float]:
    """nanoGPT's recipe; the model and its seconds."""
    torch.manual_seed(SEED)
    model = GPT(GPTConfig(block_size=64, vocab_size=n_vocab, n_layer=4, n_head=4, n_embd=128, bias=False))
    decay = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    start = time.perf_counter()
    for step in range(steps):
        lr = 1e-3 * (step + 1) / 101
        if step >= 100:
            lr = 1e-4 + 0.5 * (1 + math.cos(math.pi * (step - 100) / (steps - 100))) * (1e-3 - 1e-4)
        for group in optimizer.param_groups:
            group["lr"] = lr
        begins = torch.randint(len(train) - 64, (12,))
        x = torch.stack([train[i : i + 64] for i in begins])
        y = torch.stack([train[i + 1 : i + 65] for i in begins])
        loss = model(x, y)[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model, time.perf_counter() - start


def ours(train: torch.Tensor, n_vocab: int) -> tuple[GPT, float]:
    """Notebook 02's baseline at the laptop profile; the model and its seconds."""
    profile = PROFILES["laptop"]
    recipe = profile.char_recipe
    torch.manual_seed(SEED)
    model = GPT(GPTConfig(**{**vars(profile.char_gpt), "vocab_size": n_vocab}))
    model.init_weights(recipe.zero_residual)
    windows = Windows(train, recipe.window, recipe.batch_size, recipe.policy, SEED)
    trainer = Trainer(model, windows, recipe, pick_runtime(device="cpu"))
    start = time.perf_counter()
    for _ in trainer.steps():
        pass
    return model, time.perf_counter() - start


def run() -> dict:
    set_up(SEED)
    text = load_corpus("tinyshakespeare").text
    chars = CharTokenizer(text)
    data = torch.tensor(chars.encode(text))
    train, val = data[: int(0.9 * len(data))], data[int(0.9 * len(data)) :]
    results = {}
    for name, recipe in (("nanoGPT's recipe", nanogpt), ("ours", ours)):
        model, seconds = recipe(train, chars.n_vocab)
        results[name] = {"seconds": seconds, "validation_loss": corpus_loss(model, val, 64).mean}
        print(f"{name:18s} {seconds:7.1f} s   validation loss {results[name]['validation_loss']:.4f}", flush=True)
    results["time_ratio"] = results["ours"]["seconds"] / results["nanoGPT's recipe"]["seconds"]
    print(f"ours in {results['time_ratio']:.2f} of the time")
    return results


def cells() -> list[str]:
    """The code of notebook 02 up to the trained baseline, without its set-up, its figures and its exercises."""
    found = []
    for cell in nbformat.read(ROOT / "notebooks/02_char_baseline.ipynb", as_version=4).cells:
        if cell.cell_type == "code" and not {"set-up", "exercise", "guess"} & set(cell.metadata.tags):
            if not any(word in cell.source for word in ("show_figure(", "char-ablation.csv", "PROFILE: str")):
                found.append(cell.source.replace("show_roadmap(2)", ""))
            if "trainer.steps()" in cell.source:
                break
    return found


def ablation(seed: int) -> Iterator[tuple]:
    """The notebook's variants and its baseline, trained with this seed; then two of them with larger embeddings."""
    names = {"PROFILE": "demo", "SEED": seed}
    for source in cells():
        exec(source, names)
    train, std = names["train"], names["EMBEDDING_STD"]
    for name, model in names["variants"].items():
        yield "sample", std, name, seed, corpus_loss(model, train, names["T"]).mean, names["ablation"][name]
    trained = corpus_loss(names["model"], train, names["recipe"].window).mean
    yield "sample", std, "baseline", seed, trained, names["final"]
    names |= {"EMBEDDING_STD": 1.0, "recipe": names["profile"].variant_recipe}
    for name in ("+ feed-forward layer", "+ LayerNorm: one block"):
        exec(next(source for source in cells() if f'"{name}"' in source), names)
        trained = corpus_loss(names["variants"][name], train, names["T"]).mean
        yield "sample", 1.0, name, seed, trained, names["ablation"][name]


def record() -> None:
    """Every seed's losses, in nats per character, into data/runs/char-ablation.csv."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RUNS_DIR"] = folder
        for seed in SEEDS:
            rows += ablation(seed)
    rows.sort(key=lambda row: row[1])  # stable: the order of the notebook stays
    with (ROOT / "data/runs/char-ablation.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([*row[:4], f"{row[4]:.4f}", f"{row[5]:.4f}"] for row in rows)


if __name__ == "__main__":
    matplotlib.use("Agg")
    record()
