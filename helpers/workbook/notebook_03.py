"""What the checks of notebook 3 ask."""

import math

import torch
import torch.nn.functional as F

from helpers.config import GPTConfig
from helpers.model import GPT, Block
from helpers.workbook.check import expect, refuse
from helpers.workbook.notebook_03_count import exercise_3_6
from helpers.workbook.notebook_03_parts import (
    as_transformers_stores,
    attend,
    compare_parameters,
    first_load,
    of_shape,
    refuse_gaps,
    same,
    split_heads,
    wrong_heads,
)

__all__ = ["exercise_3_1", "exercise_3_2", "exercise_3_3", "exercise_3_4", "exercise_3_5", "exercise_3_6"]


def exercise_3_1(first_weights) -> str:
    """Weight initialisation: biases 0, scales 1, matrices normal, the residual projections smaller."""
    torch.manual_seed(0)
    block, zeros = "transformer.h.0.", torch.zeros(6)
    for part, why in (("mlp.c_fc", ""), ("attn.c_proj", " in `c_proj`, too"), ("ln_1", " of a LayerNorm, too")):
        found = first_weights(f"{block}{part}.bias", (6,), 12)
        expect(found, zeros, f"`{part}.bias` is no vector of zeros: a bias begins at 0{why}.")
    for name in (block + "ln_2.weight", "transformer.ln_f.weight"):
        expect(first_weights(name, (6,), 12), zeros + 1, f"`{name}` is LayerNorm's scale: 1, not {{found}}.")
    mean, std = _moments(first_weights, "transformer.wte.weight", 12)
    refuse(std == 0, f"`wte` is {mean:.2f} everywhere: its numbers are drawn, one by one.")
    refuse(abs(mean) > std / 5, f"`wte` lies around {mean:.2f}, not around 0: is it `torch.rand`, not `torch.randn`?")
    refuse(_near(std, 1), "`wte` has standard deviation 1: multiply what `torch.randn` draws by 0.02.")
    squared = _near(std, 0.02**2) or _near(std, math.sqrt(0.02))
    refuse(squared, f"`wte` has standard deviation {std:.4f}: 0.02 is the deviation itself, not the variance.")
    refuse(not _near(std, 0.02), f"`wte` has standard deviation {std:.4f}, not 0.02.")
    for part, layers in (("attn", 12), ("mlp", 12), ("mlp", 3)):
        name, wanted = f"{block}{part}.c_proj.weight", 0.02 / math.sqrt(2 * layers)
        _, std = _moments(first_weights, name, layers)
        refuse(_near(std, 0.02), f"`{name}` has 0.02 as all others: what writes into the stream begins smaller.")
        half = _near(std, wanted * math.sqrt(2))
        refuse(half, f"`{name}` is divided by the root of n_layer: two matrices per block write into the stream.")
        linear = _near(std, 0.02 / (2 * layers)) or _near(std, 0.02 / layers)
        refuse(linear, f"`{name}` is divided by the number of matrices: divide by its square root.")
        refuse(not _near(std, wanted), f"`{name}` has {std:.5f} where n_layer is {layers}, not {wanted:.5f}.")
    for name in (block + "mlp.c_fc.weight", block + "attn.c_attn.weight", "transformer.wpe.weight"):
        _, std = _moments(first_weights, name, 12)
        refuse(not _near(std, 0.02), f"`{name}` does not write into the stream: 0.02, and yours has {std:.4f}.")
    pair = [first_weights("transformer.wte.weight", (4, 4), 12) for _ in range(2)]
    refuse(torch.equal(*pair), "Two calls draw the same numbers: set no seed inside the function.")
    return "Every parameter begins as our helper's do; the deeper the model, the smaller what writes into the stream."


def _moments(first_weights, name: str, n_layer: int) -> tuple[float, float]:
    """Mean and standard deviation of a large matrix."""
    found = of_shape(first_weights(name, (300, 400), n_layer), (300, 400), "It is the shape that was asked for.")
    return found.mean().item(), found.std().item()


def _near(found: float, wanted: float) -> bool:
    return abs(found - wanted) < 0.03 * wanted


def exercise_3_2(layer_norm) -> str:
    """LayerNorm: moments of each position, biased variance, eps under the root, scale and bias."""
    one, zero, x = torch.ones(2), torch.zeros(2), torch.tensor([[1.0, 5.0], [101.0, 105.0]])
    found = of_shape(layer_norm(x.clone(), one, zero), (2, 2), "LayerNorm keeps the shape.")
    right = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]])
    for wrong, why in (
        ((x - x.mean()) / x.std(correction=0), "all positions share mean and variance. Each has its own: `dim=-1`"),
        (right.T, "mean and variance run over the positions. They run over the numbers of one position: `dim=-1`"),
        (right / 2**0.5, "your variance divides by C - 1, as `var` does unless told. LayerNorm's divides by C"),
        (right / 2, "you divide by the variance: take its square root"),
    ):
        refuse(same(found, wrong), f"For [[1, 5], [101, 105]] {why}.")
    refuse(found[0, 1].item() < 0, "In [1, 5] the 5 becomes negative, so its mean is another row's: `keepdim=True`?")
    expect(found, right, "[[1, 5], [101, 105]] becomes {wanted} with scale 1 and bias 0, not {found}.", 1e-4)
    found = layer_norm(x[:1].clone(), torch.tensor([2.0, 3.0]), torch.tensor([10.0, 20.0]))
    refuse(same(found, [[18, 63]]), "Your scale multiplies the bias, too: first the scale, then plus the bias.")
    refuse(same(found, [[-1, 1]]), "Scale and bias do nothing in your function.")
    expect(found, torch.tensor([[8.0, 23.0]]), "[1, 5], scale [2, 3], bias [10, 20]: {wanted}, not {found}.", 1e-3)
    found = layer_norm(torch.tensor([[0.0, 0.002]]), one, zero)
    refuse(same(found, right[:1], 1e-4), "[0, 0.002] becomes [-1, 1], so eps has no effect: add it to the variance.")
    refuse(same(found, right[:1] * 0.99), "Your eps is added to the root: it belongs under it, to the variance.")
    expect(found, right[:1] * 0.3015, "[0, 0.002] should become {wanted}, not {found}.", 1e-3)
    expect(layer_norm(x.clone(), one, zero, 5.0), right * 2 / 3, "Your eps is fixed: use the argument `eps`.", 1e-3)
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    scale, bias, kept = torch.linspace(1, 2, 8), torch.linspace(-1, 1, 8), x.clone()
    found, wanted = layer_norm(x, scale, bias), F.layer_norm(kept, (8,), scale, bias)
    expect(found, wanted, "Right for (T, C), wrong for (B, T, C): `dim=-1` is the last of any number of axes.", 1e-5)
    refuse(not torch.equal(x, kept), "Your function changes the `x` that it is given: `x = x - mean`, not `x -= mean`.")
    return "It normalizes each position by its own mean and variance, then applies scale and bias."


def exercise_3_3(pre_norm_block) -> str:
    """The pre-norm block, on parts with which every wrong connection gives another number."""
    x = torch.ones(1, 1, 1)
    found = pre_norm_block(x, lambda t: 2 * t, lambda t: t + 1, lambda t: 3 * t, lambda t: t * t)
    number = round(of_shape(found, (1, 1, 1), "A block keeps the shape of the stream.").item(), 3)
    refuse(x.item() != 1, "Your function changes the `x` that it is given: `x = x + …`, not `x += …`.")
    given = "With ln_1: 2t, attn: t + 1, ln_2: 3t, mlp: t * t, an x of 1 becomes 148"
    slips = {
        126: "your LayerNorms stand in the stream, behind each plus: that is post-norm",
        80: "your LayerNorms stand behind the parts: on each branch they come first",
        240: "your stream is normalized itself: `ln_1(x)` goes to attn, and x as it was goes to the plus",
        13: "your MLP reads the stream from before attention's plus",
        84: "the first plus is missing: attention's output is added to x",
        144: "the second plus is missing: the MLP's output is added to the stream",
        81: "both plus signs are missing: each part's output is added to the stream",
        145: "your second plus begins with the old `x`: the stream holds attention's output, too",
        147: "your second plus adds to attention's output alone: the stream holds x, too",
        105: "ln_1 and ln_2 have changed places",
        68: "ln_1 is used twice: each part has a LayerNorm of its own",
        12: "no LayerNorm is used",
    }
    refuse(number in slips, f"{given}; yours is {number:g}: {slips.get(number)}.")
    expect(number, 148.0, f"{given} (1 + 3 = 4, then 4 + 12 * 12); yours is {{found}}.")
    torch.manual_seed(0)
    block, x = Block(GPTConfig(n_head=2, n_embd=8)), torch.randn(2, 3, 8)
    found, wanted = pre_norm_block(x, block.ln_1, block.attn, block.ln_2, block.mlp), block(x)
    expect(found, wanted, "With the parts of a real block yours gives other numbers than its own forward.", 1e-5)
    return "A LayerNorm in front of each part, and a stream that is only ever added to."


def exercise_3_4(all_heads) -> str:
    """Multi-head attention without a loop: split, attend, join."""
    found, one = all_heads(torch.tensor([[[1.0, 2, 3, 4, 5, 6]]]), 2), "With one position and qkv = [1, 2, 3, 4, 5, 6]"
    of_shape(found, (1, 1, 2), "From (B, T, 3C) it makes (B, T, C).")
    blind = f"{one} yours is {found.tolist()}: is the diagonal masked, too? A position sees itself."
    refuse(bool(found.isnan().any()) or not found.any(), blind)
    refuse(same(found, [[[3, 6]]]), f"{one} you take 3 and 6 for values: all queries stand first, then all keys.")
    across = f"{one} your heads look at each other: swap T and n_head, so that positions look at positions."
    refuse(5 < found.max() < 6, across)
    expect(found, torch.tensor([[[5.0, 6.0]]]), f"{one} the result is the value, [5, 6]; yours is {{found}}.", 1e-5)
    qkv = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))
    found, kept = all_heads(qkv, 4), qkv.clone()
    of_shape(found, (2, 5, 8), "From (B, T, 3C) it makes (B, T, C).")
    for wrong, why in wrong_heads(kept, 4):
        refuse(same(found, wrong, 1e-5), why)
    differs = "For 2 windows of 5 positions and 4 heads of 2, yours differs from the loop over heads."
    expect(found, attend(*split_heads(kept, 4)), differs, 1e-5)
    for n_head in (1, 8):
        found, wanted = all_heads(qkv, n_head), attend(*split_heads(kept, n_head))
        expect(found, wanted, f"Right for 4 heads, wrong for {n_head}: is d computed from C and n_head?", 1e-5)
    return "Each head has columns of Q, K and V of its own, all go in one call, and outputs stand side by side again."


def exercise_3_5(load_by_name) -> str:
    """Weights of transformers' GPT-2 into ours: four matrices transposed, missing names refused, head and wte tied."""
    torch.manual_seed(0)
    config = GPTConfig(block_size=8, vocab_size=8, n_layer=2, n_head=2, n_embd=8)  # embeddings and attn.c_proj: square
    model, source = GPT(config), GPT(config)
    for p in source.parameters():
        torch.nn.init.normal_(p)
    theirs, kept = as_transformers_stores(source), as_transformers_stores(source)
    before = [p.detach().clone() for p in model.parameters()]
    first_load(load_by_name, model, theirs)
    tied = model.lm_head.weight is model.transformer.wte.weight
    refuse(not tied, "Head and embedding are two matrices now: write into the parameters, do not replace them.")
    compare_parameters(model, source, before)
    changed = theirs.keys() != kept.keys() or not all(same(w, kept[name], 0) for name, w in theirs.items())
    refuse(changed, "Your function changes the state dict that it is given: keep `w.T` under a new name, no `t_()`.")
    refuse(not all(p.requires_grad for p in model.parameters()), "The loaded parameters cannot be trained any more.")
    for w in theirs.values():
        w.zero_()
    shared = not all(same(p, q, 0) for p, q in zip(model.parameters(), source.parameters(), strict=True))
    refuse(shared, "Model and state dict share memory, so a change of one changes both: copy the numbers.")
    refuse_gaps(load_by_name, GPT(config), kept)
    return "Every parameter is found by its name, a block's four matrices are transposed, and a gap is refused."
