"""What the checks of notebook 4 ask."""

import torch
from torch import Tensor

from helpers.config import IGNORE
from helpers.workbook.check import expect, refuse
from helpers.workbook.notebook_04_slips import MeanLoss, SumsLoss, name_the_slip, near, numbers, with_gradients


def exercise_4_1(clip_by_norm) -> str:
    """Gradient clipping by the norm of all gradients together."""
    parameters = with_gradients([3.0, 4.0], [0.0, 12.0])
    before = clip_by_norm(parameters, 1.3)
    found = [numbers(p.grad) for p in parameters]
    moved = any(not torch.equal(p, torch.ones(2)) for p in parameters)
    refuse(moved, "Your function changes the weights. Only their gradients, `p.grad`, are to be scaled.")
    slips = {
        17.0: "17 is the sum of the two norms, 5 + 12. Of all numbers together it is the root of 5² + 12².",
        12.0: "12 is the larger of the two norms. All gradients together have one: the root of 5² + 12².",
        169.0: "169 is the sum of the squares: the norm is its root.",
        1.3: "You return the norm after clipping. A log shows it as it was before.",
    }
    name_the_slip(before, slips.items())
    expect(before, 13.0, "[3, 4] and [0, 12] have the norm {wanted} together, not {found}.", 1e-3)
    alone = "You clip each {} by itself, so the direction changes. One factor is for all: limit / norm."
    as_before = (
        "The norm is right, but `p.grad` is as it was. `p.grad *= factor` changes it, `g = g * factor` does not."
    )
    slips = [
        ([[0.78, 1.04], [0.0, 1.3]], alone.format("parameter's gradient")),
        ([[1.3, 1.3], [0.0, 1.3]], alone.format("number")),
        ([[3.0, 4.0], [0.0, 12.0]], as_before),
    ]
    name_the_slip(found, slips)
    expect(found, [[0.3, 0.4], [0.0, 1.2]], "Norm 13, limit 1.3: a tenth of all is {wanted}, not {found}.", 1e-4)
    parameters = with_gradients([3.0, 4.0])
    clip_by_norm((p for p in parameters), 1.0)
    once = "`model.parameters()` can be gone through only once, then it is empty. Begin with `list(parameters)`."
    expect(numbers(parameters[0].grad), [0.6, 0.8], once, 1e-4)
    parameters = with_gradients([0.3, 0.4])
    expect(clip_by_norm(parameters, 1.0), 0.5, "[0.3, 0.4] has the norm {wanted}, not {found}.", 1e-4)
    longer = "[0.3, 0.4] is shorter than the limit 1 and must stay: yours is {found}. The factor is never above 1."
    expect(numbers(parameters[0].grad), [0.3, 0.4], longer, 1e-4)
    return "One factor for all gradients: together they get shorter, and their direction stays."


def exercise_4_2(scheduled_rate) -> str:
    """A learning rate that rises and falls in straight lines."""
    slips = {
        0.0: "Step 0 would have the rate 0 and learn nothing. It has the first of w + 1 shares: 1/4.",
        1 / 3: "Your rise is one step too short: with w = 3 the shares are 1/4, 2/4, 3/4, and step 3 has the peak.",
        1.0: "Step 0 of 12 has the whole peak. While t < w the rate is still on its way up.",
    }
    name_the_slip(found := scheduled_rate(0, 12, 3, 1.0), slips.items())
    expect(found, 0.25, "With w = 3, step 0 has 1/4 of the peak: {wanted}, not {found}.", 1e-6)
    expect(scheduled_rate(2, 12, 3, 1.0), 0.75, "With w = 3, step 2 has 3/4 of the peak, not {found}.", 1e-6)
    jumps = "Step w jumps down to 1 - w/N. The fall begins there, with the whole peak: count the steps from w."
    name_the_slip(found := scheduled_rate(3, 12, 3, 1.0), [(0.75, jumps)])
    expect(found, 1.0, "Step w = 3 has the whole peak: {wanted}, not {found}.", 1e-6)
    slips = {
        0.0: "The last step has the rate 0 and is wasted. Zero is the rate of step N, which is not taken any more.",
        1.0: "The rate stays at its peak. From step w on it falls.",
    }
    name_the_slip(found := scheduled_rate(11, 12, 3, 1.0), slips.items())
    expect(found, 1 / 9, "From step 3 to step 12 it falls in nine parts: step 11 has 1/9, not {found}.", 1e-6)
    expect(scheduled_rate(6, 12, 3, 1.0), 2 / 3, "Step 6 is a third of the way down: 2/3, not {found}.", 1e-6)
    expect(scheduled_rate(3, 12, 3, 0.004), 0.004, "With the peak 0.004, step w has 0.004, not {found}.", 1e-9)
    expect(scheduled_rate(0, 12, 0, 1.0), 1.0, "Without warm-up (w = 0) step 0 has the peak, not {found}.", 1e-6)
    found = [scheduled_rate(t, 340, 6.8, 1.0) for t in (6, 7)]
    wanted = [7 / 7.8, 1 - 0.2 / 333.2]
    expect(found, wanted, "w may be 6.8 (2 % of 340 steps): steps 6 and 7 have {wanted}, not {found}.", 1e-6)
    return "It rises in equal parts, is whole at step w, and would be zero at step N."


def exercise_4_3(training_step) -> str:
    """Loss, gradient, clipping, rate, update."""
    model = SumsLoss()
    optimizer = torch.optim.SGD([{"params": [model.a]}, {"params": [model.b]}], lr=0.0)
    found = training_step(model, optimizer, torch.tensor([1.0, 2.0]), torch.tensor([4.0, 0.0]), 0.1, 1.0)
    refuse(found is None, "Your function returns nothing. It should end with the loss and the gradient norm.")
    pair = isinstance(found, tuple | list) and len(found) == 2
    refuse(not pair, "Two numbers are wanted: the loss, and the gradient norm before clipping.")
    loss, length = found
    rates = [group["lr"] for group in optimizer.param_groups]
    refuse(rates == [0.1, 0.0], "Only the first of the optimizer's `param_groups` gets the rate. Loop over all.")
    expect(rates, [0.1, 0.1], "The rate 0.1 does not reach the optimizer: `group['lr'] = lr` for its `param_groups`.")
    graph = isinstance(loss, Tensor) and loss.requires_grad
    refuse(graph, "The loss that you return still holds its graph; a list of losses fills the memory. `loss.item()`!")
    refuse(near([loss, length], [5.0, 11.0]), "The loss comes first, then the gradient norm.")
    refuse(near(loss, 10.5), "You return the loss after the update. Wanted is the one whose gradient you take.")
    expect(loss, 11.0, "The loss of the batch is {wanted}, not {found}.", 1e-4)
    refuse(near(length, 1.0), "You return the norm after clipping. Wanted is the one before, 5.")
    expect(length, 5.0, "The gradients 3 and 4 have the norm {wanted}, not {found}.", 1e-4)
    order = "The weights have not moved. The order is: `backward()`, clip, `step()`, and only then `zero_grad()`."
    slips = [
        ([1.0, 2.0], order),
        ([0.7, 1.6], "The weights move by the whole gradient. Clip it before `optimizer.step()`."),
        ([0.88, 1.84], "The weights move further than a clipped step of 0.1. Call `backward()` and `step()` once."),
    ]
    found = numbers(model.a, model.b)
    name_the_slip(found, slips)
    expect(found, [0.94, 1.92], "After a clipped step of 0.1 the weights are {wanted}, not {found}.", 1e-4)
    _, length = training_step(model, optimizer, torch.tensor([4.0]), torch.tensor([3.0]), 0.01, 100.0)
    left = "The next batch's norm is {found}, not 5: the last one's gradient is still there. `optimizer.zero_grad()`!"
    expect(length, 5.0, left, 1e-3)
    found = numbers(model.a, model.b)
    expect(found, [0.9, 1.89], "A second step, of 0.01, leads to {wanted}, not {found}.", 1e-4)
    return "Rate, loss, gradient, clipping, update, and no gradient left for the next batch."


def exercise_4_4(accumulate) -> str:
    """The gradient of several micro-batches, as if they were one batch."""
    model, targets = MeanLoss(), torch.tensor([0, 0, 0])
    one = torch.tensor([10.0, 99.0, 99.0]), torch.tensor([0, IGNORE, IGNORE])
    loss = accumulate(model, [(torch.tensor([1.0, 2.0, 3.0]), targets), one])
    refuse(model.w.grad is None, "There is no gradient afterwards: call `backward()`, and clear nothing.")
    joined = "You join the parts and pass them at once: right, but no memory is saved. One forward pass per part."
    refuse(model.calls == 1, joined)
    total = "You divide by all positions. Where the target is IGNORE nothing is asked: only four of the six count."
    slips = {
        12.0: "You add up the parts' means, 2 and 10: two parts, a gradient too large. Weight each by its targets.",
        6.0: "6 is the plain mean of 2 and 10. But three targets gave the 2 and one the 10: weight them 3/4 and 1/4.",
        2.5: "Only the last part's gradient is left. `backward()` adds to what is there: clear nothing between parts.",
        16.0: "You multiply by the number of targets, but do not divide by that of all parts.",
        16 / 6: total,
    }
    name_the_slip(found := round(model.w.grad.item(), 4), slips.items())
    expect(found, 4.0, "1, 2 and 3 in one part and 10 in the other have the mean {wanted}, not {found}.", 1e-4)
    graphs = "The gradient is right, but all graphs wait for one `backward()` and fill the memory: call it per part."
    refuse(model.waiting, graphs)
    graph = isinstance(loss, Tensor) and loss.requires_grad
    refuse(graph, "The gradient is right, but the loss that you return holds all graphs: add up `loss.item()`.")
    refuse(near(loss, 6.0), "The gradient is right, but you return the plain mean of the losses: weight them, too.")
    expect(loss, 4.0, "The gradient is right; the loss of the whole batch is {wanted}, not {found}.", 1e-4)
    model, x = MeanLoss(), torch.tensor([[2.0, 4.0], [6.0, 8.0]])
    accumulate(model, [(x[:1], targets[:2][None]), (x[1:], targets[:2][None])])
    expect(model.w.grad, torch.tensor(5.0), "Two windows, (1, 2) each, of 2, 4 and 6, 8: the mean is 5.", 1e-4)
    return "Each part counts by its targets, and its graph is gone before the next one is built."


def exercise_4_5(read_quiz) -> str:
    """Five unlabelled logs."""
    found = read_quiz()
    form = 'A dictionary with the letters A to E is wanted: {"A": "healthy", "B": …}.'
    refuse(not isinstance(found, dict) or sorted(found) != list("ABCDE"), form)
    evidence = {
        "E": (
            "loss averaged wrongly",
            "its line lies below the diamonds by the same factor from first to last, and they are in the band. "
            "One model, whose loss is computed in two ways.",
        ),
        "D": (
            "data not shuffled",
            "its line is below the floor halfway, and its diamonds rise: it learns its windows and not the text. "
            "Of a single batch the line would be there within forty steps.",
        ),
        "A": (
            "dropout left on",
            "its diamonds lie below its line: the measurement is easier than training. What is switched off there? (In "
            "train mode, diamonds and line would agree.)",
        ),
        "B": (
            "mask missing",
            "its line falls out of the band, and its diamonds fall with it. Which fault helps there, too?",
        ),
        "C": ("healthy", "its line stays in the band, with its diamonds beside it. Nothing speaks for a fault."),
    }
    for letter, (kind, says) in evidence.items():
        refuse(str(found[letter]).strip().lower() != kind, f"{letter} is not {found[letter]!r}: {says}")
    return "You look at where a line ends, on which side its diamonds lie, and when it leaves the band."


def exercise_4_6(first_mean_below) -> str:
    """The stop rule "mean of n"."""
    losses = [4.0, 1.0, 3.0, 1.0, 1.0]
    slips = {
        1: "Steps are counted from 1: the loss at index 1 is that of step 2.",
        5: "The first step below the target is wanted, not the last: end the loop there.",
    }
    name_the_slip(found := first_mean_below(losses, 2.0, 1), slips.items())
    expect(found, 2, "With n = 1 the first of 4, 1, 3, 1, 1 below 2 is that of step {wanted}, not {found}.")
    slips = {
        2: "The 1 at step 2 is below 2, but n = 2: the mean of 4 and 1 is 2.5.",
        3: "The mean of 1 and 3 is 2, the target: not below it. Compare with `<`.",
        4: "Step t's mean is of its own loss and the n - 1 before it. Does yours look ahead, or count from 0?",
    }
    name_the_slip(found := first_mean_below(losses, 2.0, 2), slips.items())
    refuse(found is None, "You find no step, but step 5, the last, has a mean of 1: does your loop reach it?")
    expect(found, 5, "With n = 2 the means of 4, 1, 3, 1, 1 are 2.5, 2, 2, 1: step {wanted}, not {found}.")
    early = "Before step n there is no mean of n losses: with n = 3, step {found} cannot end a run."
    found = first_mean_below([1.0, 1.0, 9.0, 9.0, 1.0, 1.0, 1.0], 2.0, 3)
    refuse(found in (1, 2), early.replace("{found}", str(found)))
    expect(found, 7, "With n = 3 the run 1, 1, 9, 9, 1, 1, 1 is below 2 at step {wanted}, not {found}.")
    at_n = "With n = 3 the mean of 1, 3, 1 is below 2 at step 3: the mean counts, not each loss; the first step is n."
    refuse(first_mean_below([1.0, 3.0, 1.0], 2.0, 3) != 3, at_n)
    never = "A run that never gets there has no such step: return None, not {found}."
    expect(first_mean_below([3.0, 3.0], 2.0, 1), None, never)
    expect(first_mean_below([1.0], 2.0, 100), None, never)
    return "It waits for n losses, looks back, and says when, or that it never was."
