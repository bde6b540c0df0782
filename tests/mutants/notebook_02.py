"""Wrong answers to the exercises of notebook 2."""

LOOP = """    for a, b in zip(text[:-1].tolist(), text[1:].tolist(), strict=True):
        counts[a, b] += 1
"""
SECOND = """y = block.mlp(block.ln_2(x))
        x = x + y if plus else y"""

MUTANTS = {
    "2.1": [
        ("a pair counts once", [(LOOP, "    counts[text[:-1], text[1:]] += 1\n")], "counts once in yours"),
        ("transposed", [("counts[a, b]", "counts[b, a]")], "Row and column are swapped"),
        ("sums of columns", [("dim=1", "dim=0")], "by each column's sum"),
        ("sums of rows divide columns", [("dim=1, keepdim=True", "dim=1")], "keepdim=True"),
        ("one sum", [("dim=1, keepdim=True", "")], "number of all pairs"),
        (
            "around the end",
            [("text[1:].tolist()", "text.roll(-1).tolist()"), ("text[:-1]", "text")],
            "first character follows",
        ),
        (
            "occurrences",
            [("counts.sum(dim=1, keepdim=True)", "text.bincount(minlength=V)[:, None]")],
            "has no follower",
        ),
        ("alpha once below", [("alpha * V", "alpha")], "alpha is added once"),
        ("nothing below", [(" + alpha * V)", ")")], "you add nothing"),
        ("one, not alpha", [("+ alpha)", "+ 1)"), ("alpha * V", "V")], "You add 1"),
        ("V from the text", [("torch.zeros(V, V)", "torch.zeros(3, 3)")], r"shape is \(3, 3\), and should be \(5, 5\)"),
        ("no return", [("    return (", "    _ = (")], "returns nothing"),
    ],
    "2.2": [
        ("no mask", [(".masked_fill(back < 0, -torch.inf)", "")], "averages over all three"),
        ("not itself", [("back < 0", "back <= 0")], r"nan.*Only j > i"),
        ("other side", [("back < 0", "back > 0")], "wrong side"),
        (
            "mask after the softmax",
            [(".masked_fill(back < 0, -torch.inf)", ""), ("softmax(dim=1)", "softmax(dim=1).tril()")],
            "comes too late",
        ),
        ("down the columns", [("softmax(dim=1)", "softmax(dim=0)")], "down the columns"),
        ("a sum", [("softmax(dim=1)", "exp()")], "a sum and no average"),
        ("no fading", [("-fade * back", "0.0 * back")], "changes nothing"),
        ("older counts more", [("-fade", "fade")], "older counts more"),
        ("one window", [("weights @ x", "(weights @ x[0])[None]")], r"shape is \(1, 5, 3\)"),
    ],
    "2.3": [
        ("no scale", [(" / math.sqrt(q.size(-1))", "")], "not scaled"),
        ("without the root", [("math.sqrt(q.size(-1))", "q.size(-1)")], "You divide by hs"),
        ("root of C", [("math.sqrt(q.size(-1))", "math.sqrt(x.size(-1))")], "root of C"),
        ("root of T", [("math.sqrt(q.size(-1))", "math.sqrt(x.size(1))")], "root of T"),
        ("no mask", [(".masked_fill(future, -torch.inf)", "")], "where is the mask"),
        ("not itself", [("triu(1)", "triu()")], r"itself.*nan"),
        ("other side", [("triu(1)", "tril(-1)")], "wrong side"),
        ("masked by 0", [("-torch.inf", "0.0")], "mask by 0"),
        (
            "mask after the softmax",
            [("masked_fill(future, -torch.inf).softmax(dim=-1)", "softmax(dim=-1).masked_fill(future, 0.0)")],
            "comes too late",
        ),
        ("over the queries", [("softmax(dim=-1)", "softmax(dim=1)")], "over the queries"),
        ("over the batch", [("softmax(dim=-1)", "softmax(dim=0)")], "over the windows"),
        ("swapped", [("q @ k.transpose(-2, -1)", "k @ q.transpose(-2, -1)")], "Queries and keys are swapped"),
        ("keys averaged", [("weights @ v", "weights @ k")], "You average the keys"),
        ("input averaged", [("weights @ v", "weights @ x")], r"shape is \(2, 5, 3\), and should be \(2, 5, 2\)"),
        ("all axes turned", [("k.transpose(-2, -1)", "k.permute(2, 1, 0)")], r"stops with RuntimeError.*your cell"),
        (
            "a softmax by hand",
            [(".softmax(dim=-1)", ".exp()"), ("weights @ v", "weights @ v / weights.sum(-1, keepdim=True)")],
            "overflow",
        ),
    ],
    "2.4": [
        ("the position itself", [("other[:, t + 1 :]", "other[:, t:]")], "Leave position t as it is"),
        ("the last position only", [("other[:, t + 1 :]", "other[:, -1:]")], "last position only"),
        ("the next position only", [("other[:, t + 1 :]", "other[:, t + 1 : t + 2]")], "two further on"),
        ("a constant", [("torch.randn_like(other[:, t + 1 :])", "1")], "does not see a constant"),
        (
            "rounding",
            [
                (
                    "torch.allclose(part(other)[:, t], before[:, t], rtol=0, atol=1e-5)",
                    "torch.equal(part(other)[:, t], before[:, t])",
                )
            ],
            "rounding for a leak",
        ),
        ("training mode", [("    part.eval()\n", "")], "random in training"),
        ("left in eval mode", [("    part.train(was_training)\n", "")], "leaves in eval mode"),
        ("left in training mode", [("part.train(was_training)", "part.train()")], "leaves in training mode"),
        ("x changed", [("x.clone()", "x")], "changes x"),
        (
            "the last one too",
            [("range(x.size(1) - 1)", "range(x.size(1))"), ("t + 1 :", "t:")],
            "After the last position",
        ),
        ("turned round", [("if not torch", "if torch")], "Leave position t as it is"),
        (
            "True and False",
            [("leaks.append(t)", "leaks.append(True)"), ("other[:, t + 1 :]", "other[:, t:]")],
            "not True and",
        ),
        ("no return", [("    return leaks\n", "    print\n")], "not None"),
    ],
    "2.5": [
        ("plus ignored", [("x + y if plus else y", "y")], "`plus` changes nothing"),
        ("always plus", [("x + y if plus else y", "x + y")], "yours still adds"),
        ("no second plus", [(SECOND, "x = block.mlp(block.ln_2(x))")], "around the feed-forward layer is missing"),
        (
            "side by side",
            [("for block in blocks:", "for block in blocks:\n        start = x"), ("ln_2(x)", "ln_2(start)")],
            "reads what came into the block",
        ),
        (
            "the line normalized",
            [
                ("y = block.attn(block.ln_1(x))", "x = block.ln_1(x)\n        y = block.attn(x)"),
                ("y = block.mlp(block.ln_2(x))", "x = block.ln_2(x)\n        y = block.mlp(x)"),
            ],
            "changes the line itself",
        ),
        (
            "behind the plus",
            [
                (
                    "y = block.attn(block.ln_1(x))\n        x = x + y",
                    "y = block.attn(x)\n        x = block.ln_1(x + y)",
                ),
                ("y = block.mlp(block.ln_2(x))\n        x = x + y", "y = block.mlp(x)\n        x = block.ln_2(x + y)"),
            ],
            "behind the plus sign",
        ),
        ("no LayerNorm", [("block.ln_1(x)", "x"), ("block.ln_2(x)", "x")], "Both LayerNorms are missing"),
        (
            "in place",
            [("x = x + y if plus else y\n        y = block.mlp", "x += y if plus else y - x\n        y = block.mlp")],
            "changes the caller's x",
        ),
        ("first block only", [("for block in blocks:", "for block in blocks[:1]:")], "two are not"),
        ("input not relative", [("change_out / change_in", "change_out")], "change of the output alone"),
        ("absolute", [(" / x.norm()", ""), (" / y.norm()", "")], "have to be relative"),
        ("upside down", [("change_out / change_in", "change_in / change_out")], "upside down"),
        ("squares", [("(change_out / change_in)", "(change_out**2 / change_in**2)")], "These are squares"),
        (
            "sizes of the other",
            [("/ x.norm()", "/ other.norm()"), ("/ y.norm()", "/ body(other).norm()")],
            "sizes of `other`",
        ),
    ],
    "2.6": [
        ("beyond only", [(">= seen - 1e-9", "> seen + 1e-9")], "counts, so `>=`"),
        (
            "one direction",
            [
                ("abs(mean(a) - mean(b))", "mean(b) - mean(a)"),
                ("abs(mean(first) - mean(second))", "mean(second) - mean(first)"),
            ],
            "one direction",
        ),
        ("how many", [("as_far / len(divisions)", "as_far")], "return how many"),
        ("closer ones", [(">= seen - 1e-9", "< seen - 1e-9")], "lie closer"),
        ("sums", [("mean(", "sum(")], "Compare means"),
        (
            "losses, not places",
            [
                ("combinations(range(len(pool)), len(a))", "combinations(pool, len(a))"),
                ("[pool[i] for i in chosen]", "list(chosen)"),
                ("[pool[i] for i in range(len(pool)) if i not in chosen]", "[y for y in pool if y not in chosen]"),
            ],
            "and not losses",
        ),
        (
            "equal divisions once",
            [
                ("list(combinations(range(len(pool)), len(a)))", "set(combinations(sorted(pool), len(a)))"),
                ("first = [pool[i] for i in chosen]", "first, rest = list(chosen), list(pool)"),
                (
                    "second = [pool[i] for i in range(len(pool)) if i not in chosen]",
                    "[rest.remove(y) for y in chosen]\n        second = rest",
                ),
            ],
            "and not losses",
        ),
    ],
}
