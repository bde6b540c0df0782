"""Wrong answers to the exercises of notebook 3."""

HEADS = ("view(B, T, n_head, C // n_head).transpose(1, 2)", "reshape(B, n_head, T, C // n_head)")
COPIED = "    with torch.no_grad():\n        for name, p in model.named_parameters():\n            w = theirs[name]\n"
BY_NAME = 'name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))'

MUTANTS = {
    "3.1": [
        (
            "biases at random",
            [('if name.endswith("bias")', 'if name.endswith("nothing")')],
            "mlp.c_fc.bias. is no vector",
        ),
        (
            "a LayerNorm is a LayerNorm",
            [('name.endswith("bias")', '"c_" in name and name.endswith("bias")')],
            "begins at 0 of a LayerNorm, too",
        ),
        ("scale 0", [("torch.ones(shape)", "torch.zeros(shape)")], "is LayerNorm's scale: 1, not"),
        ("scale at random", [('if "ln_" in name', 'if "ln_1" in name')], "is LayerNorm's scale: 1, not"),
        (
            "uniform",
            [("torch.randn(shape)", "torch.rand(shape)")],
            "lies around 0.01, not around 0: is it `torch.rand`",
        ),
        ("standard normal", [("std * torch", "torch")], "multiply what `torch.randn` draws by 0.02"),
        ("a variance", [("std * torch", "math.sqrt(std) * torch")], "0.02 is the deviation itself"),
        ("all matrices alike", [("0.02 / math.sqrt(2 * n_layer)", "0.02")], "writes into the stream begins smaller"),
        ("one per block", [("math.sqrt(2 * n_layer)", "math.sqrt(n_layer)")], "two matrices per block"),
        ("no root", [("math.sqrt(2 * n_layer)", "(2 * n_layer)")], "divide by its square root"),
        ("always twelve", [("2 * n_layer", "2 * 12")], r"has 0.00409 where n_layer is 3, not 0.00816"),
        (
            "only the MLP's",
            [('endswith("c_proj.weight")', 'endswith("mlp.c_proj.weight")')],
            "`transformer.h.0.attn.c_proj",
        ),
        (
            "every matrix in a block",
            [('endswith("c_proj.weight")', 'startswith("transformer.h")')],
            "does not write into",
        ),
        ("a seed", [("    std = 0.02\n", "    std = 0.02\n    torch.manual_seed(1337)\n")], "set no seed"),
        ("a list", [("torch.zeros(shape)", "[0.0] * shape[0]")], "tensor of the shape"),
        (
            "no random positions",
            [('if "ln_" in name', 'if "ln_" in name or "wpe" in name')],
            "`transformer.wpe.weight` does not write",
        ),
        ("zeros", [("std * torch.randn(shape)", "torch.zeros(shape)")], "its numbers are drawn, one by one"),
    ],
    "3.2": [
        (
            "unbiased variance",
            [("centred.pow(2).mean(dim=-1, keepdim=True)", "x.var(dim=-1, keepdim=True)")],
            "divides by C - 1",
        ),
        ("over everything", [("dim=-1, keepdim=True", "")], "all positions share mean and variance"),
        ("over positions", [("dim=-1", "dim=0")], "run over the positions"),
        ("the second axis", [("dim=-1", "dim=1")], r"wrong for \(B, T, C\)"),
        ("no keepdim", [(", keepdim=True", "")], "keepdim=True"),
        ("no root", [(".sqrt()", "")], "take its square root"),
        ("eps outside", [("(variance + eps).sqrt()", "(variance.sqrt() + eps)")], "under it, to the variance"),
        ("no eps", [("variance + eps", "variance")], "eps has no effect"),
        ("eps fixed", [("variance + eps", "variance + 1e-5")], "use the argument `eps`"),
        (
            "scale last",
            [
                (
                    "scale * centred / (variance + eps).sqrt() + bias",
                    "scale * (centred / (variance + eps).sqrt() + bias)",
                )
            ],
            "first the scale, then plus the bias",
        ),
        ("no scale, no bias", [("scale * centred", "centred"), (" + bias", "")], "Scale and bias do nothing"),
        ("no bias", [(" + bias", "")], r"scale \[2, 3\], bias \[10, 20\]: \[\[8"),
        ("in place", [("centred = x - x.mean", "centred = x\n    centred -= x.mean")], "changes the `x`"),
        ("no return", [("return scale", "scale")], "returns nothing"),
    ],
    "3.3": [
        (
            "post-norm",
            [("x + attn(ln_1(x))", "ln_1(x + attn(x))"), ("x + mlp(ln_2(x))", "ln_2(x + mlp(x))")],
            "that is post-norm",
        ),
        (
            "behind the parts",
            [("attn(ln_1(x))", "ln_1(attn(x))"), ("mlp(ln_2(x))", "ln_2(mlp(x))")],
            "on each branch they",
        ),
        (
            "the stream itself",
            [
                ("x = x + attn(ln_1(x))", "x = ln_1(x)\n    x = x + attn(x)\n    x = ln_2(x)"),
                ("mlp(ln_2(x))", "mlp(x)"),
            ],
            "your stream is normalized itself",
        ),
        (
            "side by side",
            [("    x = x + attn", "    y = x + attn"), ("return x + mlp", "return y + mlp")],
            "MLP reads the stream",
        ),
        ("no first plus", [("x = x + attn", "x = attn")], "first plus is missing"),
        ("no second plus", [("return x + mlp", "return mlp")], "second plus is missing"),
        ("no plus", [("x = x + attn", "x = attn"), ("return x + mlp", "return mlp")], "both plus signs"),
        ("one LayerNorm", [("ln_2(x)", "ln_1(x)")], "ln_1 is used twice"),
        ("exchanged", [("attn(ln_1(x))", "attn(ln_2(x))"), ("mlp(ln_2(x))", "mlp(ln_1(x))")], "changed places"),
        ("none", [("attn(ln_1(x))", "attn(x)"), ("mlp(ln_2(x))", "mlp(x)")], "no LayerNorm is used"),
        ("in place", [("x = x + attn", "x += attn")], "changes the `x`"),
        ("twice attention", [("mlp(ln_2(x))", "attn(ln_2(x))")], r"1 \+ 3 = 4, then 4 \+ 12 \* 12"),
        (
            "the old stream",
            [("x = x + attn(ln_1(x))", "y = x + attn(ln_1(x))"), ("x + mlp(ln_2(x))", "x + mlp(ln_2(y))")],
            "begins with the old `x`",
        ),
    ],
    "3.4": [
        ("heads without a swap", [HEADS], r"view as \(B, T, n_head, d\), then swap"),
        (
            "no swap at all",
            [HEADS, ("y.transpose(1, 2).reshape", "y.reshape")],
            r"view as \(B, T, n_head, d\), then swap",
        ),
        ("no way back", [("y.transpose(1, 2).reshape", "y.reshape")], "On the way back"),
        (
            "heads as positions",
            [
                (".transpose(1, 2)  # (B, nh, T, d)\n    k", "\n    k"),
                (").transpose(1, 2)\n", ")\n"),
                ("y.transpose(1, 2)", "y"),
            ],
            "your heads look at each other",
        ),
        (
            "a head in strides",
            [
                (
                    "view(B, T, n_head, C // n_head).transpose(1, 2)",
                    "view(B, T, C // n_head, n_head).permute(0, 3, 1, 2)",
                )
            ],
            "owns neighbouring columns",
        ),
        ("no mask", [("is_causal=True", "is_causal=False")], "sees its future: `is_causal=True`"),
        (
            "upside down",
            [("is_causal=True", "attn_mask=torch.ones(T, T, dtype=torch.bool).triu()")],
            "mask is upside down",
        ),
        ("keys first", [("q, k, v = qkv", "k, q, v = qkv")], "Queries and keys have changed places"),
        (
            "values first",
            [("q, k, v = qkv", "v, q, k = qkv")],
            r"the result is the value, \[5, 6\]; yours is \[\[\[1.0, 2.0",
        ),
        (
            "head by head",
            [
                ("q, k, v = qkv.split(C, dim=2)", "q, k, v = qkv.view(B, T, n_head, -1).chunk(3, dim=3)"),
                ("q = q.view", "q = q.reshape"),
                ("k = k.view", "k = k.reshape"),
                ("v = v.view", "v = v.reshape"),
            ],
            "all queries stand first",
        ),
        ("no scale", [("is_causal=True", "is_causal=True, scale=1.0")], "not divided by the root of d"),
        ("the scale of the stream", [("is_causal=True", "is_causal=True, scale=C**-0.5")], "divided by the root of C"),
        (
            "no root",
            [("is_causal=True", "is_causal=True, scale=n_head / C")],
            "divided by d: divide by its square root",
        ),
        ("one head", [("    B, T, C", "    n_head = 1\n    B, T, C")], "one head as wide as the stream"),
        ("heads left apart", [(".reshape(B, T, C)", "")], r"The shape is \(1, 1, 2, 1\)"),
        (
            "a score of 0",
            [
                (
                    "F.scaled_dot_product_attention(q, k, v, is_causal=True)",
                    "(q @ k.mT / q.size(-1) ** 0.5).tril().softmax(-1) @ v",
                )
            ],
            "A score of 0 hides nothing",
        ),
        (
            "softmax over queries",
            [
                (
                    "F.scaled_dot_product_attention(q, k, v, is_causal=True)",
                    "(q @ k.mT / q.size(-1) ** 0.5).masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf).softmax(-2) @ v",
                )
            ],
            "softmax runs over the queries",
        ),
        (
            "the diagonal masked",
            [("is_causal=True", "attn_mask=(torch.ones(T, T).tril(-1) - 1) * torch.inf")],
            "is the diagonal masked, too",
        ),
    ],
    "3.5": [
        ("nothing transposed", [("                w = w.T", "                pass")], r"are \(in, out\) there"),
        (
            "by shape",
            [(BY_NAME, "w.shape != p.shape")],
            "`transformer.h.0.attn.c_proj.weight` must be transposed. It is square",
        ),
        ("all matrices", [(BY_NAME, "w.ndim == 2")], "`transformer.wte.weight` must not be transposed"),
        ("in place", [("w = w.T", "w.t_()")], "changes the state dict"),
        (
            "a name only",
            [("            p.copy_(w)", "            p = w")],
            "`p = w` only gives",
        ),
        ("no no_grad", [("with torch.no_grad()", "with torch.enable_grad()")], "inside `with torch.no_grad"),
        (
            "new parameters",
            [
                (
                    "p.copy_(w)",
                    "module, _, last = name.rpartition('.')\n"
                    "            setattr(model.get_submodule(module), last, torch.nn.Parameter(w.clone()))",
                ),
                ("in model.named_parameters():\n            w", "in list(model.named_parameters()):\n            w"),
            ],
            "two matrices now",
        ),
        ("shared memory", [("p.copy_(w)", "p.data = w")], "share memory"),
        ("frozen", [("p.copy_(w)", "p.copy_(w)\n            p.requires_grad_(False)")], "cannot be trained"),
        (
            "skips what is missing",
            [("    if missing:", "    if False:"), (COPIED, COPIED.replace("theirs[name]", "theirs.get(name, p)"))],
            "says nothing",
        ),
        ("notices too late", [("    if missing:", "    if False:")], "half of the model is overwritten"),
        ("says not which", [("state dict: {missing}", "state dict")], "does not name it"),
        ("says one", [("state dict: {missing}", "state dict: {missing[0]}")], "should list both"),
        ("view", [("w = w.T", "w = w.view(p.shape)")], "`view` is no transpose"),
        ("another error", [("raise KeyError", "raise ValueError")], "you raise ValueError: a `KeyError` is asked for"),
        (
            "every name of theirs",
            [
                (
                    "for name, p in model.named_parameters():\n            w = theirs[name]",
                    "for name, w in theirs.items():\n            p = dict(model.named_parameters())[name]",
                )
            ],
            "is in the state dict only",
        ),
        (
            "strict",
            [
                (
                    "            p.copy_(w)",
                    "            theirs = {**theirs, name: w}\n        model.load_state_dict({n: w for n, w in theirs.items() if n != 'lm_head.weight'})",
                )
            ],
            "strict=False",
        ),
    ],
    "3.6": [
        (
            "the head once more",
            [("embeddings + config", "config.vocab_size * C + embeddings + config")],
            "weight tying",
        ),
        (
            "no positions",
            [("(config.vocab_size + config.block_size)", "config.vocab_size")],
            "position embedding is missing",
        ),
        ("no ln_f", [("mlp) + ln", "mlp)")], "`ln_f`, is missing"),
        ("no biases", [("int(config.bias)", "0")], r"GPT-2 has 124,439,808; yours is 124337664. 133 C too few"),
        ("no biases of matrices", [(" + bias * (3 * C + C)", ""), (" + bias * (4 * C + C)", "")], "3 C, C, 4 C and C"),
        ("c_attn without", [("(3 * C + C)", "C")], "biases too few"),
        ("no LayerNorms in blocks", [("(ln + attn + ln + mlp)", "(attn + mlp)")], "two LayerNorms of each block"),
        ("LayerNorm without bias", [("ln = C + bias * C", "ln = C")], "each LayerNorm has a scale and a bias"),
        ("by the head", [("attn = 4 * C * C", "attn = config.n_head * 4 * C * C")], "the heads share"),
        ("bias always", [("int(config.bias)", "1")], "`bias=False` changes nothing"),
        ("no scale either", [("ln = C + bias * C", "ln = 2 * bias * C")], "keeps its scale"),
        ("LayerNorm keeps its bias", [("ln = C + bias * C", "ln = 2 * C")], "the LayerNorms lose their biases, too"),
        ("the context of GPT-2", [("config.block_size", "1024")], r"GPTConfig\(block_size=1"),
        (
            "built",
            [("    C, bias", "    from helpers.model import GPT\n\n    GPT(config)\n    C, bias")],
            "You have built the model",
        ),
        ("ln_f keeps its bias", [("mlp) + ln", "mlp) + 2 * C")], "`ln_f`, loses its bias"),
        ("a bias of 3 C", [("bias * (4 * C + C)", "bias * (3 * C + C)")], "1 C per block too few"),
    ],
}
