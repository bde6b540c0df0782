"""Wrong answers to the exercises of notebook 8."""

MUTANTS = {
    "8.1": [
        ("operations per second", [(" / (2 * n_weights)", "")], "that is operations per second"),
        ("one operation per weight", [("(2 * n_weights)", "n_weights")], "a token takes two operations per weight"),
        ("one in the intensity", [("2 * n / size", "n / size")], "so the intensity is 2n / size"),
        ("the higher bound", [("min(peak", "max(peak")], "the higher of the two bounds"),
        ("reading alone", [("min(peak, intensity * bandwidth)", "intensity * bandwidth")], "no more than 5.0"),
        ("passes", [("2 * n / size", "2 / size")], "you count 2, of passes"),
        ("fp32 always", [("2 * n / size", "2 * n / 4")], "With one byte per weight"),
        (
            "nothing returned",
            [("return operations / (2 * n_weights)", "operations /= 2 * n_weights")],
            "returns nothing",
        ),
        (
            "the sum of both times",
            [("operations / (2 * n_weights)", "1 / (2 * n_weights / peak + 2 * n_weights / (intensity * bandwidth))")],
            "the slower one counts, not their sum",
        ),
    ],
    "8.2": [
        ("not scaled", [(" / k.size(-1) ** 0.5", "")], "divide them by the square root of the head size"),
        ("scaled by the width", [("k.size(-1) ** 0.5", "x.size(-1) ** 0.5")], "the width of all heads, C"),
        ("softmax over queries", [("softmax(-1)", "softmax(1)")], "softmax over the last dimension"),
        ("no projection", [("attn.c_proj(y.view(1, -1))", "y.view(1, -1)")], "has not gone through attn.c_proj"),
        (
            "not itself",
            [
                ('scores = q @ cache["k"].mT', 'scores = q @ cache["k"][:, :-1].mT'),
                ('@ cache["v"]  #', '@ cache["v"][:, :-1]  #'),
            ],
            "A token attends to itself, too",
        ),
        (
            "only the newest",
            [
                ('torch.cat([cache["k"], k], dim=1)', "k"),
                ('torch.cat([cache["v"], v], dim=1)', "v"),
            ],
            "Token 2 sees itself alone",
        ),
        (
            "the cache is not kept",
            [('    cache["k"] = torch', '    cache = dict(cache)\n    cache["k"] = torch')],
            r"After token 1 `cache\[.k.\]` should be \(2, 1, 4\), not \(2, 0, 4\)",
        ),
        ("another order", [("q, k, v = attn", "k, q, v = attn")], "the order in c_attn's output is query, key, value"),
        ("value first", [("q, k, v = attn", "v, q, k = attn")], "Which third of c_attn's output is it"),
        ("after what was there", [('[cache["k"], k], dim=1', '[cache["k"], k], dim=0')], "Your code stops with"),
        (
            "the newest first",
            [('[cache["k"], k]', '[k, cache["k"]]'), ('[cache["v"], v]', '[v, cache["v"]]')],
            "holds the newest first",
        ),
        (
            "keys reversed for the scores",
            [('q @ cache["k"].mT', 'q @ cache["k"].flip(1).mT')],
            "stand in different orders",
        ),
        ("heads interleaved", [("y.view(1, -1)", "y.flatten(1).T.reshape(1, -1)")], "The heads lie side by side"),
        (
            "causal",
            [("scores.softmax(-1)", "scores.masked_fill(torch.arange(scores.size(-1)) > 0, -torch.inf).softmax(-1)")],
            "sees the first token alone",
        ),
    ],
    "8.3": [
        ("no abs", [("matrix.abs().amax", "matrix.amax")], "Use abs.. first"),
        ("128", [("/ 127", "/ 128")], "int8 ends at 127"),
        ("255", [("/ 127", "/ 255")], "255 is for whole numbers from 0 on"),
        (
            "one scale",
            [("matrix.abs().amax(dim=1, keepdim=True)", "matrix.abs().max().expand(len(matrix), 1)")],
            "each row has its own largest weight",
        ),
        ("by columns", [("dim=1, keepdim", "dim=0, keepdim")], "Over which dimension"),
        ("cut off", [(".round()", "")], "55.6 became 55"),
        ("floats", [(".to(torch.int8)", "")], "store them as torch.int8"),
        ("a row of zeros", [("    scales = scales.clamp(min=1e-30)  # a row of zeros\n", "")], "A row of zeros: 0 / 0"),
        (
            "no keepdim",
            [("(matrix / scales)", "(matrix / scales)"), ("return values, scales", "return values, scales[:, 0]")],
            "keepdim=True",
        ),
        ("changed", [("(matrix / scales)", "matrix.div_(scales)")], "changes the matrix itself"),
        ("an epsilon", [("scales.clamp(min=1e-30)", "(scales + 1e-8)")], "is something added to every scale"),
        ("a large limit", [("min=1e-30", "min=1e-5")], "your lower limit is larger"),
    ],
    "8.4": [
        (
            "one row late",
            [("len(text) - 1 :]", "len(text) :]")],
            "After 50 passes your text is still too short",
        ),
        ("one row early", [("logits[len(text) - 1 :]", "logits[len(text) - 2 :]")], "Row t - 1 of the logits"),
        (
            "drafts without the check",
            [("while accepted < len(draft) and draft[accepted] == choices[accepted]:", "while accepted < len(draft):")],
            "gives way to that choice",
        ),
        (
            "all that match",
            [
                (
                    "while accepted < len(draft) and draft[accepted] == choices[accepted]:",
                    "for a, b in zip(draft, choices):",
                ),
                ("            accepted += 1\n", "            accepted += a == b\n"),
            ],
            "gives way to that choice",
        ),
        (
            "no own token where all are right",
            [("text += choices[: accepted + 1]", "text += choices[: max(1, accepted)]")],
            "The last row gives a third, for nothing",
        ),
        (
            "drafts kept",
            [("text += choices[: accepted + 1]", "text += [*draft, choices[-1]]")],
            "gives way to that choice",
        ),
        ("too many", [("[: end - len(text) - 1]", "")], "n more tokens, no more"),
        ("the prompt changed", [("list(prompt)", "prompt")], "lengthens the prompt itself"),
        (
            "the new tokens alone",
            [("return text, n_passes", "return text[len(prompt) :], n_passes")],
            "The prompt belongs",
        ),
        ("passes not counted", [("        n_passes += 1\n", "")], "where the model ran 4 times"),
        (
            "one token per pass",
            [("draft = propose(text)[: end - len(text) - 1]", "draft = []")],
            "your model ran 6 times. One pass checks",
        ),
        (
            "new tokens alone for the draft",
            [("propose(text)", "propose(text[len(prompt) :])")],
            "gets the whole text so far",
        ),
    ],
    "8.5": [
        ("above 1", [(".clamp(max=1)", "")], "A probability above 1"),
        ("upside down", [("p / q.clamp(min=1e-9)", "q / p.clamp(min=1e-9)")], "You divide q by p"),
        ("p alone", [("(p / q.clamp(min=1e-9)).clamp(max=1)", "p.clone()")], "looked-up draft"),
        ("0 / 0", [("q.clamp(min=1e-9)", "q")], "q.d. = 0 for two tokens, a NaN"),
        ("redrawn from p", [("surplus = (p - q).clamp(min=0)", "surplus = p")], "You redraw from p"),
        ("not a distribution", [(" / surplus.sum().clamp(min=1e-9)", "")], "divide by the sum"),
        ("abs", [("(p - q).clamp(min=0)", "(p - q).abs()")], "so clamp, not abs"),
        ("0 / 0 where p = q", [(".sum().clamp(min=1e-9)", ".sum()")], "Where p = q, a NaN"),
        ("softmax", [("surplus / surplus.sum().clamp(min=1e-9)", "surplus.softmax(0)")], "is redrawn from"),
    ],
    "8.6": [
        ("half characters", [("text = held.decode()", 'text = held.decode(errors="replace")')], "half character as"),
        ("dropped", [("text = held.decode()", 'text = held.decode(errors="ignore")')], "bytes of the owl got lost"),
        (
            "all or nothing",
            [("end = error.start ", "end = 0 ")],
            "waits in yours until the half character",
        ),
        ("shown again", [("        held = held[end:]\n", "")], r"stream\(\[b'a', b'b'\]\)"),
        (
            "nothing for nothing",
            [("        shown.append(text)\n", "        shown += [text] if text else []\n")],
            "an empty one",
        ),
        ("one string", [("return shown", 'return "".join(shown)')], "A string per token is wanted"),
        ("held forgotten", [("held += piece", "held = piece")], "bytes of the owl got lost"),
        (
            "two bytes",
            [
                ("end = error.start ", "end = max(0, len(held) - 1) "),
                ("text = held[:end].decode()", "text = held[:end].decode(errors='ignore')"),
            ],
            "of a character two bytes can be missing|bytes of the owl|For the owl",
        ),
        (
            "with codecs",
            [("    held, shown", "    import codecs\n\n    codecs.getincrementaldecoder('utf-8')\n    held, shown")],
            "Without `codecs`",
        ),
        ("a generator", [("return shown", "return iter(shown)")], "A list is wanted"),
    ],
}
