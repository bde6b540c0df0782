"""Wrong answers to the exercises of notebook 6."""

MUTANTS = {
    "6.1": [
        (
            "no correction",
            [(' / (1 - beta1 ** state["t"])', ""), (' / (1 - beta2 ** state["t"])', "")],
            "too small at first: divide them",
        ),
        ("v not corrected", [(' / (1 - beta2 ** state["t"])', "")], "correct m and not v"),
        ("t from 0", [('state.get("t", 0) + 1', 'state.get("t", -1) + 1')], "With t = 0"),
        ("t stays 1", [('state.get("t", 0) + 1', "1")], "t is still 1"),
        ("nothing kept", [('state.get("m", 0)', "0"), ('state.get("v", 0)', "0")], "knows nothing|second step"),
        ("a new state", [('state["t"] = state.get', 'state = {}\n    state["t"] = state.get')], "knows nothing"),
        ("v without square", [("(1 - beta2) * g * g", "(1 - beta2) * g")], "mean of the squares"),
        ("no root", [("v_hat.sqrt()", "v_hat")], "square root over"),
        ("a sum for m", [("(1 - beta1) * g", "g")], "ten times too long"),
        ("betas exchanged", [("beta1=0.9, beta2=0.95", "beta1=0.95, beta2=0.9")], "changed places"),
        (
            "the corrected kept",
            [("m_hat = ", 'm_hat = state["m"] = '), ("v_hat = ", 'v_hat = state["v"] = ')],
            "keep m and v, and correct them anew",
        ),
        ("L2", [('state["t"] = ', 'g = g + decay * w\n    state["t"] = '), ("lr * decay * w", "0")], "decoupled"),
        ("decay without rate", [("lr * decay * w", "decay * w")], "not 1 − λ"),
        ("no decay", [("    w = w - lr * decay * w\n", "")], "where is the decay"),
        (
            "decay behind the step",
            [
                ("    w = w - lr * decay * w\n", ""),
                (
                    "return w - lr * m_hat / (v_hat.sqrt() + eps)",
                    "return (w - lr * m_hat / (v_hat.sqrt() + eps)) * (1 - lr * decay)",
                ),
            ],
            "belongs to the old weight",
        ),
        ("epsilon in the root", [("(v_hat.sqrt() + eps)", "(v_hat + eps).sqrt()")], "outside"),
        ("no epsilon", [("(v_hat.sqrt() + eps)", "v_hat.sqrt()")], "epsilon is added"),
        (
            "in place",
            [
                ("w = w - lr * decay * w", "w -= lr * decay * w"),
                ("return w - lr", "w -= lr * m_hat / (v_hat.sqrt() + eps)\n    return w - 0 * lr"),
            ],
            "changes the tensor",
        ),
        ("uphill", [("return w - lr", "return w + lr")], "up the slope"),
    ],
    "6.2": [
        ("no norm", [(" / x.norm().clamp(min=1e-7)", "")], "Divide X by its norm"),
        ("no guard", [(".clamp(min=1e-7)", "")], "guard the division"),
        ("in place", [("x = x / x.norm()", "x /= x.norm()")], "changes the matrix"),
        (
            "norm in the loop",
            [("for _ in range(rounds):", "for _ in range(rounds):\n        x = x / x.norm().clamp(min=1e-7)")],
            "in every round",
        ),
        ("norm of rows", [("x.norm()", "x.norm(dim=1, keepdim=True)")], "One round"),
        ("always five", [("range(rounds)", "range(5)")], "five rounds where one"),
        ("gram squared by entry", [("gram @ gram", "gram**2")], "squares entry by entry"),
        ("all by entry", [("(b * gram + c * gram @ gram) @ x", "b * x**3 + c * x**5")], "go entry by entry"),
        ("the other square", [("gram = x @ x.T", "gram = x.T @ x")], "XᵀX"),
        ("brackets alone", [("(b * gram + c * gram @ gram) @ x", "b * gram + c * gram @ gram")], "once more"),
        (
            "wide unforeseen",
            [("gram = x @ x.T", "gram = x @ x.T if len(x) == x.size(1) else x.T @ x")],
            "stops with RuntimeError",
        ),
    ],
    "6.3": [
        ("no Nesterov", [('momentum * state["m"] + (1 - momentum) * g  # (R', 'state["m"]  # (R')], "counts once more"),
        (
            "the old M",
            [
                ('momentum * state.get("m", 0) + (1 - momentum) * g', "0"),
                ("    rows, ", '    state["m"] = update\n    rows, '),
            ],
            "second step",
        ),
        (
            "momentum not kept",
            [('state["m"] = momentum', "m = momentum"), ('momentum * state["m"]', "momentum * m")],
            "knows nothing",
        ),
        ("a sum for M", [('state.get("m", 0) + (1 - momentum) * g', 'state.get("m", 0) + g')], "counts 1 − μ, not 1"),
        (
            "not orthogonalised",
            [("orth(update.T).T if rows > columns else orth(update)", "update")],
            "not orthogonalised",
        ),
        ("no factor", [("math.sqrt(max(1, rows / columns)) * ", "")], "half as far"),
        ("no root", [("math.sqrt(max(1, rows / columns))", "max(1, rows / columns)")], "root of R/C"),
        ("no max", [("max(1, rows / columns)", "rows / columns")], "never below 1"),
        ("R and C exchanged", [("max(1, rows / columns)", "columns / rows")], r"not √\(2/8\)"),
        ("not turned back", [("orth(update.T).T", "orth(update.T)")], "stops with RuntimeError"),
        ("uphill", [("return w - lr", "return w + lr")], "up the slope"),
        (
            "in place",
            [("return w - lr * math", "w -= lr * math"), (" * update\n    ###", " * update\n    return w\n    ###")],
            "changes `w` itself",
        ),
    ],
    "6.4": [
        (
            "all matrices",
            [(' and not any(part in name for part in ("wte", "wpe", "lm_head"))', "")],
            "wte.weight` goes to Muon",
        ),
        (
            "position embedding forgotten",
            [('("wte", "wpe", "lm_head")', '("wte", "lm_head")')],
            "wpe.weight` goes to Muon",
        ),
        ("untied head", [('("wte", "wpe", "lm_head")', '("wte", "wpe")')], "output layer"),
        ("by name alone", [("p.ndim == 2 and ", "")], "is a vector"),
        ("state_dict", [("model.named_parameters()", "model.state_dict().items()")], "under its second name"),
        (
            "AdamW keeps all",
            [
                (
                    "(muon if hidden_matrix else adamw).append(name)",
                    "adamw.append(name)\n        if hidden_matrix:\n            muon.append(name)",
                )
            ],
            "comes twice",
        ),
        ("vectors forgotten", [("        (muon", "        if p.ndim == 2:\n            (muon")], "has no optimizer"),
        ("one list", [("return muon, adamw", "return muon + adamw")], "two lists"),
        ("projections forgotten", [('"wte", "wpe", ', '"wte", "wpe", "c_proj", ')], "but is a hidden matrix"),
        ("tensors", [("append(name)", "append(p)")], "no name of a parameter"),
    ],
    "6.5": [
        ("the lowest loss", [("below[0]))", "min(curve, key=lambda pair: pair[1])[0]))")], "the first time counts"),
        ("the last", [("below[0]))", "below[-1]))")], "the first time counts"),
        (
            "number of the measurement",
            [("[tokens for tokens, loss in curve", "[n for n, (tokens, loss) in enumerate(curve)")],
            "count measurements",
        ),
        ("at the target", [("loss < target", "loss <= target")], "not below the target 1.0"),
        ("not above", [("if loss < target", "if not loss >= target")], "NaN loss is not below"),
        ("who never arrives is left out", [("never.append((name, None))", "pass")], "has None"),
        ("never is zero", [("(name, None)", "(name, 0)")], "has None"),
        ("not sorted", [("sorted(arrived, key=lambda pair: pair[1])", "arrived")], "Best first"),
        ("by name", [("key=lambda pair: pair[1]", "key=lambda pair: pair[0], reverse=True")], "Best first"),
        (
            "never first",
            [
                (
                    "return sorted(arrived, key=lambda pair: pair[1]) + never",
                    "return never + sorted(arrived, key=lambda pair: pair[1])",
                )
            ],
            "come last, not first",
        ),
        (
            "sorted with None",
            [
                (
                    "sorted(arrived, key=lambda pair: pair[1]) + never",
                    "sorted(arrived + never, key=lambda pair: pair[1])",
                )
            ],
            "stops with TypeError.*line",
        ),
        (
            "cut to the shortest",
            [
                ("    arrived, never = [], []\n", "    arrived, never, n = [], [], min(map(len, curves.values()))\n"),
                ("in curve if", "in curve[:n] if"),
            ],
            "stop at the shortest",
        ),
        ("no measurement", [("if below:", "if curve[0] and below:")], "stops with IndexError"),
        (
            "a dictionary",
            [("return sorted(arrived, key=lambda pair: pair[1]) + never", "return dict(arrived + never)")],
            "dictionary is not",
        ),
    ],
    "6.6": [
        ("no copies", [("copy.deepcopy(saved | ", "(saved | ")], "weights in your snapshot have changed"),
        ("a flat copy", [("copy.deepcopy(saved | ", "copy.copy(saved | ")], "weights in your snapshot have changed"),
        (
            "moments not copied",
            [
                (
                    "copy.deepcopy(saved | ",
                    'copy.deepcopy({"model": saved["model"]}) | ({"optimizer": saved["optimizer"]} | ',
                )
            ],
            "moments in your snapshot have changed",
        ),
        ("no moments", [("optimizer.load_state_dict(", "id(")], "begins with empty moments"),
        (
            "moments shared",
            [('copy.deepcopy(saved["optimizer"])', 'saved["optimizer"]')],
            "Restored a second time",
        ),
        ("no random state", [('    torch.set_rng_state(saved["rng"])\n', "")], "draws other numbers"),
        ("a seed", [('torch.set_rng_state(saved["rng"])', 'torch.manual_seed(saved["step"])')], "draws other numbers"),
        ("no step", [('return saved["step"]', "return None")], "returns nothing"),
        ("one step on", [('return saved["step"]', 'return saved["step"] + 1')], "the schedule goes on"),
        (
            "another model",
            [('model.load_state_dict(saved["model"])', 'model = saved["model"]')],
            "leaves its model as it was",
        ),
        (
            "parameters alone",
            [
                ('model.state_dict(), "opt', 'dict(model.named_parameters()), "opt'),
                ('load_state_dict(saved["model"])', 'load_state_dict(saved["model"], strict=False)'),
            ],
            "BatchNorm's means",
        ),
        ("draws", [("    saved = ", "    torch.rand(1)\n    saved = ")], "itself draws"),
        ("nothing", [("return copy.deepcopy", "copy.deepcopy")], "`snapshot` returns nothing"),
    ],
}
