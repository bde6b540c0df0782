"""Training speed and memory of the 124M model: this engine against a plain loop and against transformers.

Same shapes, same machine, one run. Each contestant has a process of its own, so that its peak memory is its own; they
take turns, and the median of all steps but each turn's first counts. A turn (`python -m tests.benchmarks.throughput
NAME B T STEPS`) prints the seconds of each step, its peak bytes and this machine's matrix rate.
"""

import json
import sys
import time
from itertools import repeat
from statistics import median

import torch
import torch.nn.functional as F

from helpers.config import GPTConfig, Recipe
from helpers.model import GPT
from helpers.run.cost import flops_per_token
from helpers.run.fit import fit_to_machine
from helpers.run.preflight import matrix_rate, peak_memory
from helpers.runtime import Runtime, pick_runtime, set_up
from helpers.train import Trainer
from helpers.windows import Windows
from tests.benchmarks.turns import take_turns

SEED = 1337
CONTESTANTS = ("plain eager fp32", "transformers fp32", "transformers, best", "ours, AdamW", "ours, Muon")
SHAPES = {  # windows, tokens of a window: who takes part, and the steps of a turn (a large one takes half a minute)
    (4, 128): (CONTESTANTS, 4),
    (2, 512): (CONTESTANTS, 4),
    (32, 256): (("transformers, best", "ours, AdamW", "ours, Muon"), 1),
}
TURNS = 2


def plain_loop(loss_of, model, batches, optimizer, autocast):
    """A training step as most tutorials write it."""
    for x, y in batches:
        start = time.perf_counter()
        with autocast():
            loss = loss_of(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        yield time.perf_counter() - start


def eager_fp32(batches, device):
    """GPT-2 eager, in fp32, with AdamW as a loop over tensors."""
    gpt = GPT(GPTConfig()).to(device)
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=3e-4, foreach=False, fused=False)
    autocast = Runtime(device, torch.float32, ()).autocast
    return plain_loop(lambda x, y: gpt(x, y)[1], gpt, batches, optimizer, autocast)


def transformers(batches, device, dtype, fused):
    """transformers' GPT2LMHeadModel with its default attention."""
    from transformers import GPT2Config, GPT2LMHeadModel

    gpt = GPT2LMHeadModel(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)).to(device)
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=3e-4, fused=fused)

    def loss_of(x, y):
        logits = gpt(x).logits
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())

    return plain_loop(loss_of, gpt, batches, optimizer, Runtime(device, dtype, ()).autocast)


def ours(B: int, T: int, optimizer: str, runtime: Runtime):
    """The series' Trainer, as `python -m helpers train` uses it."""
    tokens = torch.randint(50257, (4 * B * T + 1,), device=runtime.device)
    model = GPT(GPTConfig()).to(runtime.device)
    recipe = Recipe(steps=10_000, window=T, batch_size=B, policy="grid", optimizer=optimizer, lr=3e-4, muon_lr=3e-4)
    trainer = Trainer(model, Windows(tokens, T, B, "grid", SEED), recipe, runtime)
    fit_to_machine(trainer)
    return (step.seconds for step in trainer.steps())


def contestant(name: str, B: int, T: int, runtime: Runtime):
    """The seconds of its steps, without end."""
    x = torch.randint(50257, (B, T), device=runtime.device)
    batches = repeat((x, x.roll(-1, 1)))
    if name == "plain eager fp32":
        return eager_fp32(batches, runtime.device)
    if name == "transformers fp32":
        return transformers(batches, runtime.device, torch.float32, fused=False)
    if name == "transformers, best":
        return transformers(batches, runtime.device, runtime.dtype, fused=True)
    return ours(B, T, name.removeprefix("ours, ").lower(), runtime)


def run() -> dict:
    """All contestants at all shapes, in turns."""
    results = {}
    for (B, T), (names, steps) in SHAPES.items():
        turns = take_turns("throughput", names, TURNS, B, T, steps)
        table = {}
        for name, found in turns.items():
            speed = B * T / median(s for turn in found for s in turn["seconds"][1:])
            rate = max(turn["matrix_rate"] for turn in found)
            peak = max(turn["peak_bytes"] for turn in found)
            mfu = speed * flops_per_token(GPTConfig(), T) / rate
            table[name] = {"tokens/s": speed, "share_of_bf16_matrix_rate": mfu, "peak_GiB": peak / 2**30}
        first = table[names[0]]["tokens/s"]
        print(f"{B} x {T} tokens{'':14s} tokens/s  ratio    MFU  peak GiB   (ratio to {names[0]})")
        for name, row in table.items():
            speed, mfu, peak = row.values()
            print(f"  {name:22s} {speed:10.0f} {speed / first:6.2f} {mfu:6.1%} {peak:9.1f}", flush=True)
        results[f"{B}x{T}"] = table
    return results


if __name__ == "__main__":
    set_up(SEED)
    name, B, T, n_steps = sys.argv[1], *map(int, sys.argv[2:])
    machine = pick_runtime(large=True)
    steps = contestant(name, B, T, machine)
    seconds = [next(steps) for _ in range(1 + n_steps)]
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_memory(machine), "matrix_rate": matrix_rate(machine)}))
