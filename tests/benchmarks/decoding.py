"""Writing one token at a time with 124M parameters: ours against nanoGPT's loop without a cache and transformers.

Prompt 16, 128 new tokens, one text, greedy; the contestants take turns, each turn in a process of its own. Beside
each stands what the memory allows: measured read bandwidth over the bytes of weights that a token needs. A turn
(`python -m tests.benchmarks.decoding NAME`) prints the seconds of two runs after a first one, and the bandwidth then.
"""

import csv
import json
import sys
import time

import torch

from helpers.config import GPTConfig
from helpers.generate import generate
from helpers.model import GPT
from helpers.quantize import ready_to_write
from helpers.runs import ROOT
from helpers.runtime import set_up
from tests.benchmarks.turns import take_turns

PROMPT, NEW, TURNS, SEED = 16, 128, 3, 1337
BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
CONTESTANTS = (
    "without a cache, fp32",
    "transformers, fp32",
    "transformers, bf16",
    "ours, fp32",
    "ours, bf16",
    "ours, int8",
)


def bandwidth() -> float:
    """Bytes a second that this machine reads: a matrix of 1 GB, larger than any cache, times a vector; best of five."""
    matrix, vector, times = torch.ones(16_000, 16_000), torch.ones(16_000), []
    for _ in range(5):
        start = time.perf_counter()
        matrix.mv(vector)
        times.append(time.perf_counter() - start)
    return matrix.numel() * 4 / min(times)


def without_cache(model: GPT, idx: torch.Tensor) -> None:
    """nanoGPT's `generate`: every token reads the whole text again; the head scores the last position only."""
    for _ in range(NEW):
        logits = model.lm_head(model.hidden(idx)[:, [-1]])  # (B, 1, V)
        idx = torch.cat((idx, logits[:, -1].argmax(-1, keepdim=True)), dim=1)


def contestant(name: str):
    """A function that writes NEW tokens behind PROMPT."""
    idx = torch.randint(50257, (1, PROMPT))
    who, dtype = name.split(", ")
    if who == "transformers":
        from transformers import GPT2Config, GPT2LMHeadModel

        theirs = GPT2LMHeadModel(GPT2Config()).eval().to({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])
        how = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 50256, "eos_token_id": None}
        return lambda: theirs.generate(idx, attention_mask=torch.ones_like(idx), **how)
    model = GPT(GPTConfig()).eval()
    if who == "without a cache":
        return lambda: without_cache(model, idx)
    ready = ready_to_write(model, dtype)
    return lambda: generate(ready, idx, NEW, temperature=0)


def run() -> dict:
    """All contestants, in turns; also writes build/decoding.csv, which data/runs/decoding.csv records."""
    turns = take_turns("decoding", CONTESTANTS, TURNS)
    reads = max(turn["bandwidth"] for found in turns.values() for turn in found)
    table = {}
    for name, found in turns.items():
        seconds = sorted(s for turn in found for s in turn["seconds"])
        speed = NEW / seconds[len(seconds) // 2]
        limit = None if "cache" in name else reads / (124_439_808 * BYTES[name.split(", ")[1]])
        table[name] = {"tokens/s": speed, "limit": limit}
    print(f"124M, {PROMPT} + {NEW} tokens, one text; this machine reads {reads / 1e9:.1f} GB/s")
    print(f"{'':24s} tokens/s  of the limit  to transformers fp32")
    base = table["transformers, fp32"]["tokens/s"]
    for name, (speed, limit) in ((name, row.values()) for name, row in table.items()):
        share = f"{speed / limit:12.0%}" if limit else f"{'':12s}"
        print(f"  {name:22s} {speed:8.1f} {share} {speed / base:12.2f}", flush=True)
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build/decoding.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "tokens/s", "limit"])
        for name, row in table.items():
            writer.writerow([name, f"{row['tokens/s']:.1f}", f"{row['limit']:.1f}" if row["limit"] else ""])
    return {"bandwidth": reads, **table}


if __name__ == "__main__":
    set_up(SEED)
    write = contestant(sys.argv[1])
    seconds = []
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            write()
            seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": seconds[1:], "bandwidth": bandwidth()}))
