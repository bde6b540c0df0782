"""Where the seconds of a training step of GPT-2 124M go, and which share of the machine's matrix rate it reaches.

`python -m tests.benchmarks step` takes steps of 4 x 128 and of 32 x 256 tokens, as `python -m helpers train` does.
Optimizers, clipping, head and loss are timed inside the step: how long an exponential takes depends on its numbers.
What else the forward and backward pass consists of is timed apart, on the same shapes: products of the blocks'
matrices, attention, GELU, LayerNorm, casts of the weights. The rest is additions, embeddings and dispatch.
"""

import time
from collections.abc import Callable
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn

from helpers import model
from helpers.base.gelu import gelu as activation
from helpers.base.timing import seconds_of
from helpers.config import GPTConfig, Recipe
from helpers.model import GPT
from helpers.optim import Muon
from helpers.run.cost import flops_per_token
from helpers.run.fit import fit_to_machine
from helpers.run.preflight import matrix_rate
from helpers.runtime import Runtime, pick_runtime, set_up
from helpers.train import Trainer
from helpers.windows import Windows

SEED = 1337
SHAPES = ((4, 128, 3), (32, 256, 1))  # windows, tokens of a window, steps that are timed


def run() -> dict:
    set_up(SEED)
    runtime = pick_runtime(large=True, device="cpu")
    rate, results = matrix_rate(runtime), {}
    print(f"matrix rate {rate / 1e12:.2f} TFLOP/s; {'; '.join(runtime.reasons)}", flush=True)
    for B, T, steps in SHAPES:
        parts = seconds_of_a_step(B, T, steps, runtime)
        total = parts.pop("step")
        for name, seconds in parts.items():
            print(f"  {B} x {T}  {name:28s}{seconds:8.2f} s {seconds / total:5.0%}", flush=True)
        speed = B * T / total
        mfu = speed * flops_per_token(GPTConfig(), T) / rate
        print(f"  {B} x {T}  a step: {total:.2f} s, {speed:.0f} tokens/s, {mfu:.0%} of the matrix rate", flush=True)
        results[f"{B}x{T}"] = {"seconds": total, "parts": parts, "tokens/s": speed, "mfu": mfu}
    return results


def seconds_of_a_step(B: int, T: int, steps: int, runtime: Runtime) -> dict[str, float]:
    """Mean seconds of a step and of its parts, which add up to it."""
    tokens = torch.randint(50257, (4 * B * T + 1,), device=runtime.device)
    recipe = Recipe(steps=10_000, window=T, batch_size=B, policy="grid", lr=3e-4, muon_lr=3e-4)
    trainer = Trainer(GPT(GPTConfig()).to(runtime.device), Windows(tokens, T, B, "grid", SEED), recipe, runtime)
    fit_to_machine(trainer)
    clocks = {"Muon": 0.0, "AdamW": 0.0, "clipping": 0.0, "head and loss": 0.0}
    for optimizer in trainer.optimizers:
        optimizer.step = timed(optimizer.step, clocks, "Muon" if isinstance(optimizer, Muon) else "AdamW")
    clipping = timed(nn.utils.clip_grad_norm_, clocks, "clipping")
    head = timed(model.linear_cross_entropy, clocks, "head and loss")  # its forward pass makes the gradients, too
    with (
        mock.patch.object(nn.utils, "clip_grad_norm_", clipping),
        mock.patch.object(model, "linear_cross_entropy", head),
    ):
        stream = trainer.steps()
        next(stream)
        clocks.update(dict.fromkeys(clocks, 0.0))
        total = sum(next(stream).seconds for _ in range(steps)) / steps
    passes = -(-B // trainer.micro_batch)
    parts = {name: seconds / steps for name, seconds in clocks.items()}
    parts |= {name: passes * s for name, s in parts_of_a_pass(trainer.micro_batch, T, runtime).items()}
    return {"step": total, **parts, "the rest": total - sum(parts.values())}


def timed(call: Callable, clocks: dict[str, float], name: str) -> Callable:
    def measured(*args, **options):
        start = time.perf_counter()
        result = call(*args, **options)
        clocks[name] += time.perf_counter() - start
        return result

    return measured


def parts_of_a_pass(B: int, T: int, runtime: Runtime) -> dict[str, float]:
    """Seconds, forward and backward, of what a pass over (B, T) tokens multiplies and casts."""
    config, dtype = GPTConfig(), runtime.dtype
    C, heads, N = config.n_embd, config.n_head, B * T
    q = torch.randn(B, heads, T, C // heads, dtype=dtype, requires_grad=True)
    shapes = ((C, 3 * C), (C, C), (C, 4 * C), (4 * C, C))  # in, out
    operands = [
        [
            torch.randn(*size, dtype=dtype, requires_grad=grad)
            for size, grad in (((N, i), True), ((o, i), True), ((N, o), False))
        ]
        for i, o in shapes
    ]
    x, wide = torch.randn(N, C, requires_grad=True), torch.randn(N, 4 * C, dtype=dtype, requires_grad=True)
    norm = nn.LayerNorm(C)
    weights = [torch.randn(12 * C, C) for _ in range(config.n_layer)]  # the table is cast with the head

    def products() -> None:
        for rows, weight, gradient in operands:
            torch.autograd.grad(F.linear(rows, weight), (rows, weight), gradient)

    def attention() -> None:
        torch.autograd.grad(F.scaled_dot_product_attention(q, q, q, is_causal=True).sum(), q)

    def gelu() -> None:
        torch.autograd.grad(activation(wide), wide, wide)

    def layer_norm() -> None:
        torch.autograd.grad(norm(x), (x, norm.weight, norm.bias), x)

    def casts() -> None:
        for weight in weights:
            weight.to(dtype)

    found = {"products of the blocks": (config.n_layer, products), "attention": (config.n_layer, attention)}
    found |= {"GELU": (config.n_layer, gelu), "LayerNorm": (2 * config.n_layer + 1, layer_norm), "casts": (1, casts)}
    return {name: times * seconds_of(call, within=0.5) for name, (times, call) in found.items()}
