"""What the checks of notebook 2 ask."""

import math
from itertools import combinations
from statistics import mean
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from helpers.config import GPTConfig
from helpers.model import Block
from helpers.workbook.check import expect, refuse, refuse_values
from helpers.workbook.notebook_02_slips import (
    Ahead,
    Centred,
    FromTheEnd,
    Slips,
    average_slips,
    bigram_slips,
    head_slips,
)


def exercise_2_1(my_bigram) -> str:
    """Bigram probabilities with alpha added to every count."""
    text = torch.tensor([0, 1, 0, 1, 0, 2])
    counts = torch.tensor([[0.0, 2.0, 1.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = my_bigram(text.clone(), 3, 0.5)
    _name_the_slip(found, bigram_slips(counts, 0.5))
    wanted = (counts + 0.5) / (counts.sum(dim=1, keepdim=True) + 1.5)
    expect(found, wanted, "The table of the example is {wanted}, not {found}.", 1e-5)
    counts = F.pad(counts, (0, 2, 0, 2))
    wanted = (counts + 2) / (counts.sum(dim=1, keepdim=True) + 10)
    expect(my_bigram(text, 5, 2.0), wanted, "V = 5 means a row and a column for 3 and 4 too, which never come.", 1e-5)
    text, wanted = torch.arange(1000) % 2, torch.tensor([[1.0, 501.0], [500.0, 1.0]])
    expect(
        my_bigram(text, 2, 1.0),
        wanted / wanted.sum(dim=1, keepdim=True),
        "In 0, 1, 0, 1, … of 1,000 characters the table comes out wrong. Do the counts get all pairs?",
        1e-5,
    )
    return "Row a holds what follows a, alpha went to every count, and each row sums to 1."


def exercise_2_2(my_average) -> str:
    """Weights from scores: causal, fading, a softmax along the row."""
    x = torch.tensor([[[2.0], [6.0], [4.0]]])
    found = my_average(x.clone(), 0.0)
    _name_the_slip(found, average_slips())
    expect(found, torch.tensor([[[2.0], [4.0], [4.0]]]), "Without fading 2, 6, 4 become 2, 4, 4, not {found}.", 1e-4)
    found = my_average(x.clone(), math.log(2))
    slips = [
        ("Your `fade` changes nothing: the score of what lies d behind is -fade · d.", [2.0, 4.0, 4.0]),
        ("In yours what is older counts more. Scores fall with the distance: -fade · (i - j).", [2, 10 / 3, 24 / 7]),
        ("Your weights do not sum to 1: the softmax comes after everything else.", [2.0, 7.0, 7.5]),
    ]
    _name_the_slip(found, [(sentence, torch.tensor(numbers)[None, :, None]) for sentence, numbers in slips])
    wanted = torch.tensor([[[2.0], [14 / 3], [30 / 7]]])
    expect(found, wanted, "With fade = ln 2, 2, 6, 4 become {wanted}, not {found}.", 1e-4)
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    weights = torch.tensor([[math.exp(-0.7 * (i - j)) * (j <= i) for j in range(5)] for i in range(5)])
    wanted = (weights / weights.sum(dim=1, keepdim=True)) @ x
    expect(my_average(x, 0.7), wanted, "One window of three positions is right, two of five are not.", 1e-4)
    return "Every position averages over what came up to it, older positions fade, and the future stays hidden."


def exercise_2_3(my_head) -> str:
    """Queries, keys, values, scale, mask and softmax, for a batch."""
    g = torch.Generator().manual_seed(2)
    x, matrices = torch.randn(2, 5, 3, generator=g), torch.randn(3, 3, 2, generator=g)
    q, k, v = (x @ w for w in matrices)
    found = my_head(x, *matrices)
    _name_the_slip(found, head_slips(q, k, v, C=3))
    wanted = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    expect(found, wanted, "Compare each step with the formula: scores, scale, mask, softmax, values.", 1e-4)
    found = my_head(x[:1, :1], *matrices)
    expect(found, v[:1, :1], "A position that is alone puts out its own value. Do B and T come from x?", 1e-4)
    wanted = F.scaled_dot_product_attention(30 * q, 30 * k, 30 * v, is_causal=True)
    expect(my_head(30 * x, *matrices), wanted, "Scores in the hundreds overflow in yours; `softmax` takes them.", 0.1)
    return "Each query meets the keys up to its own, and the scaled scores decide how much of each value arrives."


def exercise_2_4(my_leaks) -> str:
    """Which positions see later ones, for models that do so in different ways."""
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(3))
    kept, every = x.clone(), [0, 1, 2, 3]
    found = my_leaks(Ahead(0), x)
    refuse(not torch.equal(x, kept), "Your function changes x. Work on a copy: `other = x.clone()`.")
    refuse(not isinstance(found, list | tuple), f"A list of positions is wanted, such as [0, 1], not {found}.")
    refuse(any(isinstance(t, bool) for t in found), "Return the positions that see later ones, not True and False.")
    refuse(4 in found, "After the last position nothing comes: it cannot see the future. Yours names it.")
    refuse(found == every, "A part that hands x on sees no future, yours says [0, 1, 2, 3]. Leave position t as it is.")
    expect(found, [], "A part that hands x on sees no future: {wanted}, not {found}.")
    found = my_leaks(Ahead(1), x)
    refuse(found == [3], "You change the last position only. 0 to 3 may each see the one after it: change all later.")
    expect(found, every, "If every position puts out what the next one holds: {wanted}, not {found}.")
    late = "If every position puts out what stands two further on: {wanted}, not {found}. Change all that is later."
    expect(my_leaks(Ahead(2), x), [0, 1, 2], late)
    by_random = "A part that takes off the mean of each position does not see a constant: change by random numbers."
    expect(my_leaks(Centred(), x), every, by_random)
    rounding = "You take rounding for a leak. A change of up to 1e-5 does not count: `allclose(…, rtol=0, atol=1e-5)`."
    expect(my_leaks(FromTheEnd(), x), [], rounding)
    part = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    expect(my_leaks(part, x), [], "`nn.Dropout` is random in training, you take it for a leak: `part.eval()` first.")
    refuse(not (part.training and part[1].training), "The part came in training mode and leaves in eval mode.")
    my_leaks(part.eval(), x)
    refuse(part.training, "The part came in eval mode and leaves in training mode: `part.train(was_training)`.")
    return "It finds a look at the next position or at a far one, and takes neither rounding nor chance for one."


def exercise_2_5(my_stack, my_arrival) -> str:
    """Blocks with and without residual connections, and how much the output behind them depends on the input."""
    one = SimpleNamespace(ln_1=lambda x: 2 * x, attn=lambda x: x + 1, ln_2=lambda x: 3 * x, mlp=lambda x: 5 * x + 1)
    x = torch.ones(1, 1, 1)
    slips = {
        46.0: "`plus` changes nothing: where it is true, add what comes in.",
        49.0: "The plus sign around attention is missing.",
        61.0: "The plus sign around the feed-forward layer is missing.",
        20.0: "Your feed-forward layer reads what came into the block. It reads what attention has added to.",
        62.0: "Your second plus adds what came into the block. It adds what stands on the line by then.",
        91.0: "Your LayerNorm changes the line itself. Only what a part reads goes through it: attn(ln_1(x)).",
        111.0: "Your LayerNorm stands behind the plus sign. Here it stands in front of the part: attn(ln_1(x)).",
        83.0: "Your LayerNorm stands behind the part. Here it stands in front of it: attn(ln_1(x)).",
        19.0: "Both LayerNorms are missing: attn(ln_1(x)), mlp(ln_2(x)).",
    }
    found = my_stack(x, [one], True)
    refuse(not torch.equal(x, torch.ones(1, 1, 1)), "`x += …` changes the caller's x. `x = x + …` makes a new one.")
    _name_the_slip(found, [(sentence, torch.full((1, 1, 1), number)) for number, sentence in slips.items()])
    expect(found, torch.full((1, 1, 1), 65.0), "One block, its plus signs, x = 1: {wanted}, not {found}.")
    found = my_stack(x, [one], False)
    refuse(found is not None and found.item() == 65, "Without `plus` yours still adds: each part replaces x then.")
    expect(found, torch.full((1, 1, 1), 46.0), "One block without plus signs, x = 1: {wanted}, not {found}.")
    blocks = [Block(GPTConfig(block_size=4, vocab_size=3, n_layer=2, n_head=2, n_embd=8)) for _ in range(2)]
    x = torch.randn(1, 4, 8)
    again = "One block is right, two are not: the second reads what the first has made, and its own parts."
    expect(my_stack(x, blocks, True), blocks[1](blocks[0](x)), again, 1e-4)
    _ask_about_arrival(my_arrival)
    return "The plus signs keep what came in, and your measure tells how much the output still depends on it."


def _ask_about_arrival(my_arrival) -> None:
    x, other = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0])
    slips = {
        4 / 313**0.5: "You have the change of the output alone: divide it by that of the input, ‖x - x'‖ / ‖x‖.",
        1.0: "The changes have to be relative: each is divided by the size of what it changes, ‖y‖ and ‖x‖.",
        0.8 / (4 / 313**0.5): "Your fraction is upside down: the output's relative change stands above.",
        (4 / 313**0.5 / 0.8) ** 2: "These are squares. `y.norm()` is the root of the sum of squares.",
        (4 / 15) / (4 / 3): "You divide by the sizes of `other` and of its output: take those of x and y.",
    }
    found = my_arrival(lambda x: x + 9, x, other)
    refuse_values(found, slips)
    expect(found, 4 / 313**0.5 / 0.8, "A body that adds 9: 0.283 for the example, yours is {found}.", 1e-4)
    expect(my_arrival(torch.ones_like, x, other), 0.0, "A body that always puts out the same: 0, not {found}.", 1e-4)
    expect(my_arrival(lambda x: -7 * x, x[None], other[None]), 1.0, "A body that gives -7x: 1, not {found}.", 1e-4)


def exercise_2_6(my_chance) -> str:
    """The permutation test of a difference of means, exact and in both directions."""
    a, b = [1.0, 2.0], [4.0, 8.0]
    slips = {
        0.0: "The real division is one of the divisions: as far apart as itself counts, so `>=`.",
        1 / 6: "You count one direction. The means may lie as far apart either way: `abs` of the difference.",
        2.0: "You return how many there are. The share is wanted: divide by how many divisions there are.",
        2 / 3: "You count the divisions that lie closer. Those at least as far apart are wanted.",
    }
    found = my_chance(list(a), list(b))
    refuse_values(found, slips)
    expect(found, 1 / 3, "The example has 2 of 6 divisions, 0.333; yours is {found}. Each division counts once.", 1e-4)
    equal = "Two losses may be equal, and each counts: divide places (0, 1, 2, …) and not losses."
    a, b = [1.0, 1.0, 5.0], [2.0, 3.0, 9.0]
    expect(my_chance(list(a), list(b)), _chance(a, b), equal, 1e-4)
    expect(my_chance([0.0, 0.0, 0.0], [8.0]), 0.25, "[0, 0, 0] and [8]: {wanted}, not {found}. Compare means.", 1e-4)
    a, b = [1.0, 3.0, 9.0, 10.0], [2.0, 11.0, 12.0]
    expect(my_chance(a, b), _chance(a, b), "[1, 3, 9, 10] and [2, 11, 12]: {wanted}, not {found}.", 1e-4)
    return "It counts every division once, in both directions, the real one among them."


def _chance(a: list[float], b: list[float]) -> float:
    far, divisions = [], list(combinations(range(len(a) + len(b)), len(a)))
    for chosen in divisions:
        first = [(a + b)[i] for i in chosen]
        second = [(a + b)[i] for i in range(len(a) + len(b)) if i not in chosen]
        far.append(abs(mean(first) - mean(second)))
    return sum(distance >= abs(mean(a) - mean(b)) - 1e-9 for distance in far) / len(divisions)


def _name_the_slip(found: object, slips: Slips) -> None:
    """Say what has happened if `found` is what a typical slip gives."""
    for sentence, wrong in slips:
        same_kind = isinstance(found, torch.Tensor) and found.shape == wrong.shape
        refuse(same_kind and torch.allclose(found.double(), wrong.double(), 0, 1e-4, equal_nan=True), sentence)
