"""What the checks of notebook 6 ask."""

import torch
from torch import Tensor, nn

from helpers.config import GPTConfig
from helpers.model import GPT
from helpers.optim import COEFFICIENTS, hidden_matrices, orthogonalize
from helpers.workbook.check import expect, refuse
from helpers.workbook.notebook_06_run import buffers, moments, new_run, restored_again, train, weights
from helpers.workbook.notebook_06_slips import DECAY, EPSILON, FIRST_STEP, SECOND_STEP, compare


def exercise_6_1(adamw_step) -> str:
    """A step of AdamW; all numbers worked by hand."""
    w, g, state = torch.tensor([1.0, -2.0]), torch.tensor([3.0, -0.5]), {}
    first = adamw_step(w, g, state, 0.1)
    changed = w.tolist() != [1.0, -2.0] or g.tolist() != [3.0, -0.5]
    refuse(changed, "Your step changes the tensor `w` or `g` itself (`w -= …`): make a new one, `w = w - …`.")
    compare(first, [0.9, -1.9], FIRST_STEP, "The first step at rate 0.1 goes from [1, -2] to {wanted}, not {found}.")
    second = adamw_step(first, torch.tensor([-1.0, 2.0]), state, 0.1)
    compare(second, [0.859569, -1.955340], SECOND_STEP, "The second step should arrive at {wanted}, not {found}.")
    still = adamw_step(w, torch.zeros(2), {}, 0.1, decay=0.5)
    compare(still, [0.95, -1.9], DECAY, "With gradient 0 and decay 0.5, [1, -2] becomes {wanted}, not {found}.")
    both = adamw_step(w, g, {}, 0.1, decay=0.5)
    slip = "You decay what the step has moved: the factor 1 − ηλ belongs to the old weight alone."
    compare(both, [0.85, -1.8], [([0.855, -1.805], slip)], "Step and decay together: {wanted}, not {found}.")
    tiny = adamw_step(torch.zeros(1), torch.tensor([1e-8]), {}, 0.1)
    compare(tiny, [-0.05], EPSILON, "A gradient as small as epsilon moves half a rate, to {wanted}, not {found}.")
    return "The first step moves every weight by the rate, m and v are kept, and the decay stays out of them."


def exercise_6_2(newton_schulz) -> str:
    """The quintic iteration, against the helper's."""
    a, b, c = COEFFICIENTS
    x = torch.diag(torch.tensor([0.8, 0.6]))  # of norm 1
    no_x = a * x + b * x @ x + c * x @ x @ x @ x
    slips = [(_orth(x), "You do five rounds where one is asked for: count to `rounds`.")]
    slips += [(no_x, "The brackets b XXᵀ + c (XXᵀ)² are multiplied by X once more, from the left.")]
    otherwise = "One round of diag(0.8, 0.6): a·0.8 + b·0.8³ + c·0.8⁵ = 0.976, a·0.6 + … = 1.193; yours is {found}."
    compare(newton_schulz(x, 1), _orth(x, 1), slips, otherwise)
    x = torch.tensor([[0.6, 0.0], [0.48, 0.64]])  # of norm 1
    gram = x @ x.T
    slips = [(a * x + b * x**3 + c * x**5, "`*` and `**` go entry by entry; products of matrices are `@`.")]
    slips += [(a * x + (b * gram + c * gram**2) @ x, "`gram ** 2` squares entry by entry; write `gram @ gram`.")]
    slips += [(a * x + (b * x.T @ x + c * x.T @ x @ x.T @ x) @ x, "Your square is XᵀX, and the formula has XXᵀ.")]
    compare(newton_schulz(x, 1), _orth(x, 1), slips, "One round of [[0.6, 0], [0.48, 0.64]]: {wanted}, not {found}.")
    ten = 10 * x
    found = newton_schulz(ten, 1)
    refuse(not torch.equal(ten, 10 * x), "Your function changes the matrix it is given: `x = x / …`, not `x /= …`.")
    slips = [(a * ten + (b * 100 * gram + c * 10000 * gram @ gram) @ ten, "Divide X by its norm, before the loop.")]
    compare(found, _orth(x, 1), slips, "X and 10 X give the same if X is divided by `x.norm()`: {wanted}, not {found}.")
    wide = torch.tensor([[3.0, 0.0, 4.0], [0.0, 1.0, 0.0]])
    by_norm = _orth(_orth(wide, 1), 1)
    slips = [(by_norm, "You divide by the norm in every round. Once, before the loop, is enough.")]
    found = newton_schulz(wide, 2)
    compare(found, _orth(wide, 2), slips, "Two rounds of [[3, 0, 4], [0, 1, 0]]: {wanted}, not {found}.")
    zeros = torch.zeros(2, 3)
    expect(newton_schulz(zeros), zeros, "A matrix of zeros becomes {found}: guard the division, `.clamp(min=1e-7)`.")
    return "Directions stay, and their strengths come near 1, by products of matrices alone."


def _orth(x: Tensor, rounds: int = 5) -> Tensor:
    return orthogonalize(x[None], COEFFICIENTS, 1e-7, rounds)[0]


def exercise_6_3(muon_step) -> str:
    """A step of Muon, against one put together from the helper's orthogonalisation."""
    w, g1, g2 = torch.ones(2, 2), torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [-3.0, 1.0]])
    state: dict = {}
    first = muon_step(w, g1, state, 0.1)
    refuse(bool((w != 1).any()), "Your step changes `w` itself (`w -= …`): make a new one, `w = w - …`.")
    slips = [
        (w + 0.1 * _orth(g1), "Your step goes up the slope: subtract the update."),
        (w - 0.1 * 0.0975 * g1, "The update is not orthogonalised: `orth(update)`."),
        (w - _orth(g1), "The rate is missing: the step is the rate times the orthogonalised update."),
    ]
    compare(first, w - 0.1 * _orth(g1), slips, "A first step from ones(2, 2): {wanted}, not {found}.")
    m2 = 0.95 * 0.05 * g1 + 0.05 * g2
    fat = 0.95 * (0.95 * g1 + g2) + 0.05 * g2
    slips = [
        (first - 0.1 * _orth(g2), "The second step knows nothing of the first: put M back into `state`."),
        (first - 0.1 * _orth(m2), "You step along M. The update is μM + (1 − μ)G with the new M: G counts once more."),
        (first - 0.1 * _orth(fat), "In M the new gradient counts 1 − μ, not 1."),
    ]
    compare(muon_step(first, g2, state, 0.1), first - 0.1 * _orth(0.95 * m2 + 0.05 * g2), slips, SECOND)
    tall = torch.arange(16.0).view(8, 2) % 5
    moved, flat = 0.1 * _orth(tall.T).T, 0.1 * _orth(tall.T)
    slips = [
        (-moved, "A matrix of 8 rows and 2 columns moves half as far as it should: where is √max(1, R/C) = 2?"),
        (-4 * moved, "The factor is the root of R/C: 2 for 8 rows and 2 columns, not 4."),
        (-0.5 * moved, "R is the number of rows: the factor is √(8/2) = 2 for 8 rows and 2 columns, not √(2/8)."),
    ]
    found = muon_step(torch.zeros(8, 2), tall, {}, 0.1)
    compare(found, -2 * moved, slips, "For 8 rows and 2 columns: {wanted}, not {found}.")
    slips = [(-0.5 * flat, "A wide matrix shrinks its step: the factor is never below 1, `max(1, …)`.")]
    slips += [(-2 * flat, "R/C is rows over columns: a matrix of 2 rows and 8 columns has the factor 1.")]
    found = muon_step(torch.zeros(2, 8), tall.T, {}, 0.1)
    compare(found, -flat, slips, "For 2 rows and 8 columns: {wanted}, not {found}.")
    return "Momentum, the newest gradient once more, all directions equally strong, scaled for tall matrices."


SECOND = "The second step arrives at {found} and not at {wanted}: look at M, at the update, and at what `state` keeps."


def exercise_6_4(split) -> str:
    """Names of parameters for Muon and for AdamW."""
    model = GPT(GPTConfig(block_size=4, vocab_size=5, n_layer=2, n_head=1, n_embd=4))
    _ask_split(split, model)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())  # untied
    _ask_split(split, model)
    return "Each parameter has one optimizer: hidden matrices Muon, all else AdamW."


def _ask_split(split, model: GPT) -> None:
    found = split(model)
    pair = isinstance(found, list | tuple) and len(found) == 2
    refuse(not pair, "Return two lists: the names for Muon, and those for AdamW.")
    muon, adamw = ([str(name) for name in names] for names in found)
    names, hidden = [name for name, _ in model.named_parameters()], hidden_matrices(model)
    for name in [*muon, *adamw]:
        second = name == "lm_head.weight" and name not in names
        tied = "It is the embedding matrix under its second name: `named_parameters()` has each tensor once."
        refuse(second, f"`{name}` should not be there. {tied}")
        refuse(name not in names, f"`{name[:40]}` is no name of a parameter, as `named_parameters()` has it.")
        refuse([*muon, *adamw].count(name) > 1, f"`{name}` comes twice, and would step twice.")
    for name in muon:
        refuse("ln_" in name or name.endswith("bias"), f"`{name}` is a vector, with no directions: AdamW's.")
        refuse("wte" in name or "wpe" in name, f"`{name}` goes to Muon, but its rows are read one by one: AdamW's.")
        refuse(name not in hidden, f"`{name}` goes to Muon, but is the output layer: AdamW's, tied or not.")
    for name in names:
        refuse(name not in [*muon, *adamw], f"`{name}` has no optimizer, and would never learn.")
    for name in adamw:
        refuse(name in hidden, f"`{name}` goes to AdamW, but is a hidden matrix: Muon's.")


def exercise_6_5(ranking) -> str:
    """Runs by tokens to target."""
    one = {"a": [(100, 2.0), (200, 0.5), (300, 0.2)]}
    found = ranking(one, 1.0)
    refuse(isinstance(found, dict), "A dictionary is not what is wanted, but a list of pairs: [('a', 200)].")
    for wrong in (1, 2):
        refuse(found == [("a", wrong)], "You count measurements. Wanted are tokens, the first number of each pair.")
    refuse(found == [("a", 300)], "The run is below 1.0 at 200 tokens: the first time counts, not the lowest loss.")
    expect(found, [("a", 200)], "The loss falls below 1.0 at 200 tokens: {wanted}, not {found}.")
    found = ranking({"a": [(100, 2.0)]}, 1.0)
    expect(found, [("a", None)], "A run that never arrives has None for its tokens: {wanted}, not {found}.")
    found = ranking({"a": [(100, 0.9), (200, 1.5), (300, 0.8)]}, 1.0)
    expect(found, [("a", 100)], "A loss that falls below 1.0 and rises again did arrive: {wanted}, not {found}.")
    found = ranking({"a": [(100, 1.0), (200, 0.9)]}, 1.0)
    expect(found, [("a", 200)], "A loss of 1.0 is not below the target 1.0: {wanted}, not {found}.")
    expect(ranking({"a": []}, 1.0), [("a", None)], "A run without a measurement never arrived: {wanted}, not {found}.")
    nan = ranking({"a": [(100, float("nan"))]}, 1.0)
    expect(nan, [("a", None)], "A NaN loss is not below the target: ask `loss < target`, not the opposite.")
    long = [(100, 3.0), (200, 2.0), (300, 1.5), (400, 0.5)]
    runs = {"slow": long, "short": [(50, 2.0)], "quick": [(80, 2.0), (160, 0.9)], "other": [(90, 1.5), (700, 1.2)]}
    kept, found = {name: list(curve) for name, curve in runs.items()}, ranking(runs, 1.0)
    refuse(runs != kept, "Your function changes the curves it is given: sort a list of your own.")
    order = [("quick", 160), ("slow", 400), ("short", None), ("other", None)]
    cut_off = isinstance(found, list | tuple) and ("slow", None) in [tuple(pair) for pair in found]
    refuse(cut_off, "One log has 4 measurements and another 1. You stop at the shortest: look at each run by itself.")
    refuse([tuple(pair) for pair in found[:2]] == order[2:], "Runs that never arrive come last, not first.")
    expect(found, order, "Best first, then those that never arrive, in their order: {wanted}, not {found}.")
    return "Tokens to target, the best first, and who never arrives stays in the table."


def exercise_6_6(snapshot, restore) -> str:
    """A tiny run with dropout and batch normalization, put aside after three steps, and continued in another."""
    model, optimizer = new_run(0)
    train(model, optimizer, 0)
    kept, rng = (weights(model), buffers(model), moments(optimizer)), torch.get_rng_state()
    saved = snapshot(model, optimizer, 3)
    refuse(saved is None, "`snapshot` returns nothing: is there a `return`?")
    drawn = not torch.equal(rng, torch.get_rng_state())
    refuse(drawn, "Your snapshot itself draws random numbers: a run that is saved must go on like one that is not.")
    train(model, optimizer, 3)
    other, its = new_run(1)
    fresh, step = weights(other), restore(saved, other, its)
    refuse(
        torch.equal(weights(other), fresh), "`restore` leaves its model as it was: `model.load_state_dict(…)` fills it."
    )
    moved = "have changed as the run went on: `state_dict()` hands out its own tensors. Save copies."
    refuse(torch.equal(weights(other), weights(model)), f"The weights in your snapshot {moved}")
    expect(weights(other), kept[0], "The restored weights are not those that were saved.")
    same = torch.equal(buffers(other), kept[1])
    refuse(not same, "Parameters are not all of a model: its buffers, BatchNorm's means, are lost (`state_dict`).")
    refuse(not its.state, "The restored optimizer begins with empty moments: save its `state_dict()`, too.")
    refuse(torch.equal(moments(its), moments(optimizer)), f"The moments in your snapshot {moved}")
    expect(moments(its), kept[2], "The restored moments are not those that were saved.")
    expect(
        step, 3, "`restore` returns the step that was saved, {wanted}, not {found}: the schedule goes on from there."
    )
    lost = "Dropout draws other numbers than it would have: save `torch.get_rng_state()`, and set it again."
    refuse(not torch.equal(torch.get_rng_state(), rng), lost)
    train(other, its, 3)
    expect(weights(other), weights(model), "After three more steps the bits differ: what else does a step depend on?")
    shared = "An optimizer's `load_state_dict` keeps the tensors that it is given, and the run has changed them: copy."
    expect(restored_again(restore, saved), kept[2], f"Restored a second time, the moments are others. {shared}")
    return "Weights, buffers, moments, step and random state: the resumed run has the same bits."
