"""Wrong answers to the exercises of notebook 9."""

MUTANTS = {
    "9.1": [
        ("natural", [("math.log2(count)", "math.log(count)")], "per e-fold"),
        ("tenfold", [("math.log2(count)", "math.log10(count)")], "per tenfold"),
        ("no logarithm", [("math.log2(count)", "count")], "repetitions themselves"),
        (
            "through zero",
            [("middle, level = sum(x) / len(x), sum(shares) / len(shares)", "middle, level = 0, 0")],
            "through zero",
        ),
        (
            "where it begins",
            [("return rise / spread", "return level - rise / spread * middle")],
            "where the line begins",
        ),
        (
            "the other way round",
            [("return rise / spread", "return spread / rise")],
            "spread of the shares|rises by",
        ),
        (
            "two points",
            [("return rise / spread", "return (shares[-1] - shares[0]) / (x[-1] - x[0])")],
            "first and the last point only",
        ),
        (
            "mean of steps",
            [("return rise / spread", "return sum(b - a for a, b in zip(shares, shares[1:])) / (len(x) - 1)")],
            "three doublings, not one",
        ),
        (
            "in order only",
            [("return rise / spread", "return rise / spread if x == sorted(x) else -rise / spread")],
            "In another order",
        ),
    ],
    "9.2": [
        ("logits", [(".log_softmax(-1)", "")], "You add up logits"),
        ("off by one", [("[len(prefix) - 1 : -1]", "[len(prefix) :]")], "Off by one"),
        (
            "the prefix too",
            [("[len(prefix) - 1 : -1]", "[:-1]"), ("targets = torch.tensor(secret)", "targets = idx[0, 1:]")],
            "its own tokens do not count",
        ),
        ("the mean", [(".sum()", ".mean()")], "is the sum"),
        ("only the last", [(".sum()", "[-1]")], "the last token alone"),
        ("not the first", [(".sum()", "[1:].sum()")], "first token is missing"),
        ("the probability", [("return scores.sum()", "return scores.sum().exp()")], "That is the probability"),
        ("the sign", [("return scores.sum()", "return -scores.sum()")], "The sign is turned"),
        ("one for each", [(".sum()", "")], "One number is wanted"),
        ("with a graph", [("@torch.no_grad()\n", "")], "no_grad"),
        (
            "without the prefix",
            [
                ("[prefix + secret]", "[secret]"),
                ("[len(prefix) - 1 : -1]", "[:-1]"),
                ("torch.tensor(secret)", "torch.tensor(secret[1:])"),
            ],
            "The prefix is not read",
        ),
    ],
    "9.3": [
        (
            "natural",
            [("math.log2(len(scores)) - math.log2(rank)", "math.log(len(scores)) - math.log(rank)")],
            "natural logarithm",
        ),
        ("without itself", [(">=", ">")], "counts the secret, too"),
        (
            "ties in front",
            [("rank = int((scores >= scores[secret]).sum())", "rank = 1 + int((scores > scores[secret]).sum())")],
            "Rank it behind its equals",
        ),
        ("the least likely", [(">=", "<=")], "not the last one"),
        (
            "the sign",
            [("math.log2(len(scores)) - math.log2(rank)", "math.log2(rank) - math.log2(len(scores))")],
            "log2 N less log2 of the rank",
        ),
        ("the rank", [("return math.log2(len(scores)) - math.log2(rank)", "return rank")], "That is the rank"),
        (
            "no logarithm",
            [("return math.log2(len(scores)) - math.log2(rank)", "return len(scores) / rank")],
            "Take log2 of that",
        ),
        (
            "place for rank",
            [("rank = int((scores >= scores[secret]).sum())", "rank = secret + (secret == 0)")],
            "not its rank",
        ),
    ],
    "9.4": [
        (
            "the target's own token",
            [
                ("hashed(x.unfold(1, h, 1))", "hashed(torch.cat((x[:, 1:], y[:, -1:]), 1).unfold(1, h, 1))"),
                ("(h - 1, 0)", "(h - 1, 0)"),
            ],
            "Yours looks at the target itself",
        ),
        (
            "one too far",
            [("(h - 1, 0)", "(h, 0)"), ("hashes % k == 0", "hashes[:, :-1] % k == 0")],
            "one token too far back",
        ),
        ("the other way round", [("hashes % k == 0", "hashes % k != 0")], "You keep what should go"),
        ("zero", [("masked_fill(left_out, IGNORE)", "masked_fill(left_out, 0)")], "which the loss skips"),
        ("the first too", [("(h - 1, 0))", "(h - 1, 0), value=True)")], "too few tokens before them"),
        ("in place", [("y.masked_fill(", "y.masked_fill_(")], "changes x or y"),
        ("by chance", [("hashes % k == 0", "torch.rand(hashes.shape) < 1 / k")], "remain|other targets"),
        ("inputs", [("return y.masked_fill", "return x.masked_fill")], "inputs with holes"),
        ("too long a context", [("x.unfold(1, h, 1)", "x.unfold(1, h + 1, 1)")], "contexts of h = 2 tokens, not of 3"),
    ],
    "9.5": [
        (
            "whole documents",
            [
                (
                    "pieces = {tuple(document[i : i + n]) for i in range(max(1, len(document) - n + 1))}",
                    "pieces = {tuple(document)}",
                )
            ],
            "a copy need not be whole",
        ),
        ("all pieces known", [("if not pieces & seen:", "if not pieces <= seen:")], "a copy need not be whole"),
        (
            "also of what went",
            [
                ("            seen |= pieces\n", ""),
                (
                    "        if not pieces & seen:\n",
                    "        new = not pieces & seen\n        seen |= pieces\n        if new:\n",
                ),
            ],
            "left out itself",
        ),
        ("nothing remembered", [("            seen |= pieces\n", "")], "stands there twice"),
        (
            "short ones vanish",
            [
                ("max(1, len(document) - n + 1)", "len(document) - n + 1"),
                ("if not pieces & seen:", "if pieces and not pieces & seen:"),
            ],
            "shorter than a piece",
        ),
        (
            "short ones all stay",
            [("max(1, len(document) - n + 1)", "len(document) - n + 1")],
            "the second kl is a copy",
        ),
        (
            "pieces without order",
            [("tuple(document[i : i + n])", "frozenset(document[i : i + n])")],
            "Order counts|stays",
        ),
        (
            "the last piece missing",
            [("len(document) - n + 1)", "len(document) - n)")],
            "ghi is a piece|bcd|keep their order|abcdef",
        ),
        (
            "the last copy",
            [("for document in documents:", "for document in documents[::-1]:")],
            "keep their order|bcd|ghi|abcdef",
        ),
        ("in place", [("return kept", "documents[:] = kept\n    return documents")], "changes the list"),
    ],
    "9.6": [
        ("mean", [("nats / math.log(2)).sum()", "nats / math.log(2)).mean()")], "the mean per token"),
        (
            "what is left",
            [("(math.log2(n_symbols) - nats / math.log(2))", "(nats / math.log(2))")],
            "what the model still has to be told",
        ),
        ("nats less bits", [("nats / math.log(2)", "nats")], "The losses are in nats"),
        (
            "all in nats",
            [("math.log2(n_symbols)", "math.log(n_symbols)"), ("nats / math.log(2)", "nats")],
            "a bit is log 2",
        ),
        ("multiplied", [("nats / math.log(2)", "nats * math.log(2)")], "divide, as 0.693"),
        ("natural log of V", [("math.log2(n_symbols)", "math.log(n_symbols)")], "both in bits"),
        ("cut off", [(").sum()", ").clamp(min=0).sum()")], "No token is cut off"),
        ("one row", [(").sum()", ").sum(0)[0]")], "over one dimension only"),
        (
            "the sign",
            [("math.log2(n_symbols) - nats / math.log(2)", "nats / math.log(2) - math.log2(n_symbols)")],
            "other way round",
        ),
    ],
}
