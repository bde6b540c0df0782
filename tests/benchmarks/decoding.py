"""Writing with 124M parameters, one text at a time: ours against nanoGPT's loop without a cache and transformers.

All have the same weights, which were first taught one passage of the bundled scene (half a minute), are given its
first 16 tokens and must write the other 128, greedily; one that writes anything else fails. "Speculative" looks up in
the whole scene what may come next, and as the model recites, every draft is right: the most that drafts can give.

The contestants take turns, each turn in a process of its own. Beside each stands the memory-bandwidth bound where every
token reads all weights: measured read bandwidth over their bytes. A turn (`python -m tests.benchmarks.decoding NAME
FOLDER`) prints the seconds of two runs after a first one, and the bandwidth then.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from helpers.config import GPTConfig, Recipe
from helpers.data import gpt2_tokenizer, load_corpus
from helpers.generate import generate
from helpers.model import GPT
from helpers.runtime import pick_runtime, set_up
from helpers.serve.decoding import for_decoding
from helpers.serve.provenance import VerbatimIndex
from helpers.train import Trainer, load_checkpoint, save_checkpoint
from helpers.windows import Windows
from tests.benchmarks.table import write_table
from tests.benchmarks.turns import take_turns
from tests.reference import hugging_face

PROMPT, NEW, TURNS, SEED = 16, 128, 3, 1337
BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
CONTESTANTS = (
    "without a cache, fp32",
    "transformers, fp32",
    "transformers, bf16",
    "ours, fp32",
    "ours, bf16",
    "ours, int8",
    "ours speculative, fp32",
    "ours speculative, bf16",
    "ours speculative, int8",
)


def teach(book: torch.Tensor, folder: Path) -> None:
    """Save a GPT-2 124M that knows the first tokens of the book."""
    passage, machine = book[: PROMPT + NEW], pick_runtime(large=True, device="cpu")
    recipe = Recipe(steps=40, window=len(passage) - 1, batch_size=1, policy="grid", optimizer="adamw", lr=3e-4)
    trainer = Trainer(GPT(GPTConfig()), Windows(passage, recipe.window, 1, "grid"), recipe, machine)
    loss = [step.loss for step in trainer.steps()][-1]
    print(f"the passage: loss {loss:.4f} after {recipe.steps} steps", flush=True)
    save_checkpoint(folder, trainer.model, {})


def bandwidth() -> float:
    """Bytes a second that this machine reads: a matrix of 1 GB, larger than any cache, times a vector; best of five."""
    matrix, vector, times = torch.ones(16_000, 16_000), torch.ones(16_000), []
    for _ in range(5):
        start = time.perf_counter()
        matrix.mv(vector)
        times.append(time.perf_counter() - start)
    return matrix.numel() * 4 / min(times)


def without_cache(model: GPT, idx: torch.Tensor) -> torch.Tensor:
    """nanoGPT's `generate`: every token reads the whole text again; the head scores the last position only."""
    for _ in range(NEW):
        logits = model.lm_head(model.hidden(idx)[:, [-1]])  # (B, 1, V)
        idx = torch.cat((idx, logits[:, -1].argmax(-1, keepdim=True)), dim=1)
    return idx


def contestant(name: str, model: GPT, index: VerbatimIndex) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function of the prompt (1, PROMPT) that adds NEW tokens."""
    who, dtype = name.split(", ")
    if who == "transformers":
        theirs = hugging_face(model).to({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])
        sampling = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 50256, "eos_token_id": None}
        return lambda idx: theirs.generate(idx, attention_mask=torch.ones_like(idx), **sampling)
    if who == "without a cache":
        return lambda idx: without_cache(model, idx)
    ready, draft = for_decoding(model, dtype), index.continuation if who == "ours speculative" else None
    return lambda idx: generate(ready, idx, NEW, temperature=0, draft=draft)


def run() -> dict:
    """All contestants, in turns; also writes build/decoding.csv, which data/runs/decoding.csv records."""
    set_up(SEED)
    with tempfile.TemporaryDirectory() as folder:
        teach(torch.tensor(gpt2_tokenizer().encode(load_corpus("sample").text)), Path(folder))
        turns = take_turns("decoding", CONTESTANTS, TURNS, folder)
    reads = max(turn["bandwidth"] for found in turns.values() for turn in found)
    table = {}
    for name, found in turns.items():
        seconds = sorted(s for turn in found for s in turn["seconds"])
        speed = NEW / seconds[len(seconds) // 2]
        limit = None if "cache" in name or "speculative" in name else reads / (124_439_808 * BYTES[name.split(", ")[1]])
        table[name] = {"tokens/s": speed, "limit": limit}
    print(f"124M, {PROMPT} + {NEW} tokens, one text; this machine reads {reads / 1e9:.1f} GB/s")
    print(f"{'':26s} tokens/s  of the limit  to transformers fp32")
    base = table["transformers, fp32"]["tokens/s"]
    for name, (speed, limit) in ((name, row.values()) for name, row in table.items()):
        share = f"{speed / limit:12.0%}" if limit else f"{'':12s}"
        print(f"  {name:24s} {speed:8.1f} {share} {speed / base:12.2f}", flush=True)
    rows = [
        [name, f"{row['tokens/s']:.1f}", f"{row['limit']:.1f}" if row["limit"] else ""] for name, row in table.items()
    ]
    write_table("decoding", ("name", "tokens/s", "limit"), rows)
    return {"bandwidth": reads, **table}


if __name__ == "__main__":
    set_up(SEED)
    index = VerbatimIndex(load_corpus("sample").text, gpt2_tokenizer())
    passage = torch.tensor([index.tokens[: PROMPT + NEW]])
    write = contestant(sys.argv[1], load_checkpoint(sys.argv[2], GPT)[0].eval(), index)
    seconds = []
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            text = write(passage[:, :PROMPT])
            seconds.append(time.perf_counter() - start)
            if not torch.equal(text, passage):
                sys.exit(f"error: {sys.argv[1]} wrote something else")
    print(json.dumps({"seconds": seconds[1:], "bandwidth": bandwidth()}))
