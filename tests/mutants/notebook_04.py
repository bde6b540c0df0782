"""Wrong answers to the exercises of notebook 4."""

NORM = "torch.stack([p.grad.norm() for p in parameters]).norm()"
CLIP = "    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)\n"
STEP = "    optimizer.step()\n"
CLEAR = "    optimizer.zero_grad()\n"
RATE = '    for group in optimizer.param_groups:\n        group["lr"] = lr\n'

MUTANTS = {
    "4.1": [
        ("sum of norms", [(NORM, "sum(p.grad.norm() for p in parameters)")], "17 is the sum of the two norms"),
        ("largest norm", [(NORM, "max(p.grad.norm() for p in parameters)")], "the larger of the two"),
        ("no root", [(NORM, "sum((p.grad**2).sum() for p in parameters)")], "the norm is its root"),
        ("norm after", [("return norm.item()", "return min(norm.item(), limit)")], "norm after clipping"),
        (
            "each by its own norm",
            [("limit / norm\n", "min(1, limit / p.grad.norm())\n")],
            "parameter's gradient by itself",
        ),
        ("each number", [("p.grad *= limit / norm", "p.grad.clamp_(-limit, limit)")], "each number by itself"),
        ("a copy is scaled", [("p.grad *= limit / norm", "g = p.grad * limit / norm")], "`p.grad` is as it was"),
        ("weights scaled", [("p.grad *= limit", "p.data *= limit")], "changes the weights"),
        (
            "generator",
            [("    parameters = list(parameters)  # a generator is empty after its first loop\n", "")],
            "`list",
        ),
        ("short ones stretched", [("if norm > limit:", "if True:")], "never above 1"),
        ("no return", [("return norm.item()", "norm.item()")], "returns nothing"),
    ],
    "4.2": [
        ("t, not t + 1", [("(t + 1) / (warmup + 1)", "t / (warmup + 1)")], "rate 0 and learn nothing"),
        ("peak a step early", [("(t + 1) / (warmup + 1)", "(t + 1) / warmup")], "one step too short"),
        ("no warm-up", [("if t < warmup:", "if False:"), ("1 - (t - warmup)", "1 - max(0, t - warmup)")], "whole peak"),
        ("falls from 0", [("1 - (t - warmup) / (steps - warmup)", "1 - t / steps")], "jumps down"),
        ("zero at the last step", [("(steps - warmup)", "(steps - 1 - warmup)")], "last step has the rate 0"),
        (
            "constant",
            [("    return peak * (1 - (t - warmup) / (steps - warmup))", "    return peak")],
            "stays at its peak",
        ),
        (
            "half a cosine",
            [("(1 - (t - warmup) / (steps - warmup))", "(1 - ((t - warmup) / (steps - warmup)) ** 2)")],
            "nine parts",
        ),
        ("share, not rate", [("return peak * (1", "return (1")], "With the peak 0.004"),
        ("whole w", [("    if t <", "    warmup = int(warmup)\n    if t <")], "w may be 6.8"),
    ],
    "4.3": [
        ("no clearing", [(CLEAR, "")], "zero_grad"),
        ("cleared too early", [(STEP + CLEAR, CLEAR + STEP)], "have not moved"),
        ("clip after the update", [(CLIP + STEP, STEP + CLIP)], "Clip it before"),
        ("rate of the first group", [(RATE, '    optimizer.param_groups[0]["lr"] = lr\n')], "Only the first"),
        ("rate not set", [(RATE, "")], "does not reach the optimizer"),
        ("loss with its graph", [("loss.item(), norm", "loss, norm")], "still holds its graph"),
        ("loss alone", [("loss.item(), norm.item()", "loss.item()")], "Two numbers"),
        ("swapped", [("loss.item(), norm.item()", "norm.item(), loss.item()")], "comes first"),
        ("loss after", [("return loss.item()", "return model.loss(x, y).item()")], "after the update"),
        ("norm after", [("norm.item()", "min(norm.item(), limit)")], "norm after clipping"),
        (
            "update before the gradient",
            [(STEP, ""), ("    loss.backward()", STEP + "    loss.backward()")],
            "not moved",
        ),
        ("twice", [(STEP, STEP + STEP)], "further than a clipped step"),
        ("no return", [("    return loss.item(), norm.item()\n", "")], "returns nothing"),
    ],
    "4.4": [
        ("sum of means", [(" * (y != IGNORE).sum() / total", "")], "Weight each by its targets"),
        ("plain mean", [("(y != IGNORE).sum() / total", "1 / len(parts)")], "plain mean of 2 and 10"),
        (
            "positions counted",
            [("(y != IGNORE).sum() / total", "y.numel() / sum(y.numel() for _, y in parts)")],
            "plain mean",
        ),
        ("total of positions", [("sum((y != IGNORE).sum() for", "sum(y.numel() for")], "divide by all positions"),
        ("not divided", [(".sum() / total", ".sum()")], "do not divide"),
        (
            "cleared between",
            [("        share.backward()", "        model.zero_grad()\n        share.backward()")],
            "Only the last part",
        ),
        (
            "cleared at the end",
            [("    return batch", "    model.zero_grad()\n    return batch")],
            "no gradient afterwards",
        ),
        (
            "one backward",
            [
                ("share.backward()", "batch_loss = batch_loss + share"),
                ("        batch_loss += share.item()\n", ""),
                ("    return batch_loss", "    batch_loss.backward()\n    return batch_loss.item()"),
            ],
            "all graphs wait",
        ),
        (
            "joined",
            [("for x, y in parts:", "for x, y in [[torch.cat(part) for part in zip(*parts)]]:")],
            "join the parts",
        ),
        ("graphs kept", [("+= share.item()", "+= share")], "holds all graphs"),
        (
            "mean of losses",
            [("share.item()", "share.item() * total / (y != IGNORE).sum().item() / len(parts)")],
            "plain mean of the losses",
        ),
        ("no return", [("    return batch_loss\n", "")], "returns nothing"),
    ],
    "4.5": [
        ("line and diamonds agree", [("dropout left on", "evaluation in train mode")], "A is not .*In train mode"),
        ("too fast", [("data not shuffled", "stopped on one batch")], "D is not .*forty steps"),
        ("diamonds fall, too", [("mask missing", "data not shuffled")], "B is not .*helps there, too"),
        ("suspicion", [('"C": "healthy"', '"C": "tail dropped"')], "C is not .*Nothing speaks for a fault"),
        ("below the floor", [("loss averaged wrongly", "targets not shifted")], "E is not .*computed in two ways"),
        ("a letter left out", [('        "C": "healthy",\n', "")], "letters A to E"),
    ],
    "4.6": [
        ("counted from 0", [("return t\n", "return t - 1\n")], "counted from 1"),
        (
            "last one",
            [("            return t\n    return None", "            last = t\n    return last")],
            "not the last",
        ),
        ("at most", [("/ n < target", "/ n <= target")], "not below it"),
        ("looks ahead", [("losses[t - n : t]", "losses[t - 1 : t - 1 + n]")], "look ahead"),
        ("any of n", [("sum(losses[t - n : t]) / n", "min(losses[t - n : t])")], "mean of 4 and 1"),
        (
            "short means",
            [("range(n, ", "range(1, "), ("t - n :", "max(0, t - n) :"), ("/ n", "/ min(t, n)")],
            "Before step n",
        ),
        ("not at step n", [("range(n, ", "range(n + (n > 2), ")], "the first step is n"),
        ("ends a step early", [("len(losses) + 1", "len(losses)")], "does your loop reach it"),
        ("all of n", [("sum(losses[t - n : t]) / n", "max(losses[t - n : t])")], "the mean counts"),
        ("0 for never", [("return None", "return 0")], "return None, not 0"),
        ("no return", [("return t\n", "t\n")], "returns nothing"),
    ],
}
