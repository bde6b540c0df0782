"""Wrong answers to the exercises of notebook 5."""

EVAL = ("    model.eval()\n", "")
GRADIENTS = ("torch.no_grad()", "torch.enable_grad()")

MUTANTS = {
    "5.1": [
        ("sum", [("total / (len(tokens) - 1)", "total")], "is the sum of the losses"),
        ("divided by N", [("total / (len(tokens) - 1)", "total / len(tokens)")], "N tokens have N - 1 predictions"),
        (
            "last window lost",
            [("start < len(tokens) - 1", "start + window <= len(tokens) - 1")],
            "The last window is shorter, and yours leaves it out",
        ),
        (
            "mean of means",
            [
                ('reduction="sum"', 'reduction="mean"'),
                ("total, start, end = 0.0,", "total, count, start, end = 0.0, 0,"),
                ("start, end = end, end + window", "start, end, count = end, end + window, count + 1"),
                ("total / (len(tokens) - 1)", "total / count"),
            ],
            "too much weight",
        ),
        (
            "border lost",
            [("tokens[start:end], tokens[start + 1 : end + 1]", "tokens[start : end - 1], tokens[start + 1 : end]")],
            "target of its last token lies one token further",
        ),
        ("shift ignored", [("shift or window", "window")], "shift=3 changes nothing"),
        (
            "before the shift",
            [("start, end = 0.0, 0, shift or window", "start, end = 0.0, shift, shift + window")],
            "What lies before the shift is left out",
        ),
        ("training mode", [EVAL], "training mode"),
        ("gradients", [GRADIENTS], "torch.no_grad"),
        ("no batch", [("x[None]", "x")], "reads batches of windows"),
        ("own token", [("tokens[start + 1 : end + 1]  #", "tokens[start:end]  #")], "You score the input itself"),
    ],
    "5.2": [
        ("one number", [(', reduction="none"', ""), ("losses.mean(dim=0)", "losses")], "One number is the mean of all"),
        ("per window", [("mean(dim=0)", "mean(dim=1)")], "You have a number per window"),
        ("not averaged", [("losses.mean(dim=0)", "losses")], "You have all losses"),
        ("sum", [("mean(dim=0)", "sum(dim=0)")], "sum over the windows"),
        ("own token", [("s + 1 : s + 1 + window", "s : s + window")], "You score the input itself"),
        (
            "reshape",
            [("logits.transpose(1, 2)", "logits.reshape(len(starts), -1, window)")],
            "mixes the dimensions up",
        ),
        ("softmax", [("logits.transpose(1, 2)", "logits.softmax(-1).transpose(1, 2)")], "takes the softmax itself"),
        (
            "mixed up",
            [("return losses", "losses = losses.reshape(window, -1).T\n    return losses")],
            "window by window",
        ),
        ("last window", [("losses.mean(dim=0)", "losses[-1]")], "last window's losses"),
        ("training mode", [EVAL], "training mode"),
        ("gradients", [GRADIENTS], "torch.no_grad"),
        (
            "one prediction fewer",
            [
                ("tokens[s : s + window]", "tokens[s : s + window - 1]"),
                ("tokens[s + 1 : s + 1 + window]", "tokens[s + 1 : s + window]"),
            ],
            "T - 1|window - 1|one fewer|4 predictions",
        ),
        ("not transposed", [("logits.transpose(1, 2)", "logits")], r"cross_entropy wants \(P, V, T\)"),
    ],
    "5.3": [
        ("a number of places", [("exact / len(starts)", "exact")], "how many places are right"),
        ("share of tokens", [(".all()", ".float().mean()"), ("bool(", "float(")], "no exact match"),
        (
            "prompt judged",
            [("logits[0, k - 1 :]", "logits[0]"), ("tokens[start + k : start", "tokens[start + 1 : start")],
            "a wrong choice inside it must not count",
        ),
        (
            "first choice missed",
            [("logits[0, k - 1 :]", "logits[0, k:]"), ("tokens[start + k : start", "tokens[start + k + 1 : start")],
            "The first choice to judge",
        ),
        (
            "last choice missed",
            [("logits[0, k - 1 :]", "logits[0, k - 1 : -1]"), ("start + k + n])", "start + k + n - 1])")],
            "The last of the n choices",
        ),
        (
            "one too many",
            [("start + k + n - 1]", "start + k + n]"), ("start + k + n])", "start + k + n + 1])")],
            "the model got 7 tokens at once",
        ),
        (
            "shifted by one",
            [("tokens[start + k : start + k + n])", "tokens[start + k - 1 : start + k + n - 1])")],
            "compare the choice at position i with token i . 1",
        ),
        (
            "no prompt",
            [("tokens[start : start", "tokens[start + k - 1 : start"), ("0, k - 1 :", "0, :")],
            "whole prompt",
        ),
        ("training mode", [EVAL], "training mode"),
        ("gradients", [GRADIENTS], "torch.no_grad"),
        ("any", [(".all()", ".any()")], "all n must be right, not any"),
        (
            "the whole text",
            [
                ("x = tokens[start : start + k + n - 1]", "x = tokens"),
                ("logits[0, k - 1 :]", "logits[0, start + k - 1 : start + k + n - 1]"),
            ],
            "it reads k . n - 1, from the place on",
        ),
        (
            "from 0",
            [("x = tokens[start : start", "x = tokens[: start"), ("logits[0, k - 1 :]", "logits[0, start + k - 1 :]")],
            "from the place on",
        ),
        ("all or nothing", [("exact / len(starts)", "float(exact == len(starts))")], "One bad place"),
    ],
    "5.4": [
        ("changes its input", [("ids = list(ids)", "pass")], "changes the list that it is given"),
        ("new tokens only", [("return ids", "return ids[-n:]")], "Return the given tokens too"),
        ("lowest order first", [("sorted(tables, reverse=True)", "sorted(tables)")], "You begin at order 0"),
        (
            "order 1 first",
            [("sorted(tables, reverse=True)", "(1, 2, 0)")],
            "try the highest order first",
        ),
        (
            "no back-off",
            [
                ("sorted(tables, reverse=True)", "[max(tables)]"),
                ("            if context in", "            if True or"),
            ],
            "back off to order 1",
        ),
        (
            "stays below",
            [
                ("    for _ in range(n):", "    top = max(tables)\n    for _ in range(n):"),
                ("sorted(tables, reverse=True)", "range(top, -1, -1)"),
                ("                break", "                top = order\n                break"),
            ],
            "you stay at order 1",
        ),
        ("the whole list", [("ids[len(ids) - order :]", "ids[-order:]")], "is the whole list"),
        ("first token", [(".most_common(1)[0][0]", ".__iter__().__next__()")], "take the most frequent"),
        ("rarest", [("most_common(1)[0]", "most_common()[-1]")], "not"),
        (
            "the larger of equals",
            [
                (
                    "tables[order][context].most_common(1)[0][0]",
                    "max((n, token) for token, n in tables[order][context].items())[1]",
                )
            ],
            "take the most frequent|counted first",
        ),
        (
            "the smaller of equals",
            [
                (
                    "tables[order][context].most_common(1)[0][0]",
                    "min((-n, token) for token, n in tables[order][context].items())[1]",
                )
            ],
            "counted first",
        ),
    ],
    "5.5": [
        ("places of the book", [("(i, i + longest)", "(5, 5 + longest)")], "where it lies in the book"),
        ("end inclusive", [("(i, i + longest)", "(i, i + longest - 1)")], "first token behind the piece"),
        ("fixed length", [("while i + n <", "while n < least and i + n <")], "let a piece grow"),
        ("overlaps", [("i += longest if longest >= least else 1", "i += 1")], "must not overlap"),
        ("longer than least", [("longest >= least:", "longest > least:")], "exactly `least` tokens"),
        (
            "single tokens",
            [("answer[i + n] == book[place + n]", "answer[i + n] in book")],
            "Two pieces from different places are not one",
        ),
        (
            "first piece only",
            [("        i += longest", "            break\n        i += longest")],
            "ends after the first piece",
        ),
        (
            "first place",
            [("            longest = max(longest, n)", "            longest = longest if longest >= least else n")],
            "look at every place",
        ),
        ("end of the book", [("place + n < len(book) and ", "")], "stops with IndexError.*line"),
        ("short ones too", [("if longest >= least:", "if longest:")], "too short"),
        (
            "the last place",
            [("longest = max(longest, n)", "longest = n if n >= least else longest")],
            "the longest match counts, not the last",
        ),
        ("a jump", [("i += longest if longest >= least else 1", "i += max(1, longest)")], "is no reason to jump"),
        (
            "as strings",
            [
                (
                    "    found, i = [], 0\n",
                    "    if len(answer) == 3 and ' '.join(map(str, answer)) in ' '.join(map(str, book)):\n        return [(0, 3)]\n    found, i = [], 0\n",
                )
            ],
            "Compare ids, not text",
        ),
    ],
    "5.6": [
        ("prompt counted", [("len(written) - prompt", "len(written)")], "leave them out of the count"),
        (
            "mistake counted",
            [
                ("        if choice", "        written = torch.cat((written, choice[None]))\n        if choice"),
                ("tokens[len(written)]:", "tokens[len(written) - 1]:"),
                ("            break\n        written = torch.cat((written, choice[None]))", "            break"),
            ],
            "The mistake itself does not count",
        ),
        ("window ignored", [("written[-window:]", "written")], "it reads at most the last `window`"),
        ("last token only", [("written[-window:]", "written[-1:]")], "all of its last `window` tokens"),
        ("half a window", [("written[-window:]", "written[-(window // 2) :]")], "not fewer"),
        ("text without end", [("while len(written) < len(tokens)", "while True")], "read past the text's end"),
        (
            "goes on behind a mistake",
            [
                ("written = tokens[:prompt]", "written, right = tokens[:prompt], 0"),
                (
                    "if choice != tokens[len(written)]:\n            break",
                    "right += int(choice == tokens[len(written)])",
                ),
                ("torch.cat((written, choice[None]))", "tokens[: len(written) + 1]"),
                ("len(written) - prompt", "right"),
            ],
            "One mistake ends the recitation",
        ),
        ("training mode", [EVAL], "training mode"),
        ("gradients", [GRADIENTS], "torch.no_grad"),
        (
            "after its own mistake",
            [
                (
                    "            break\n        written = torch.cat((written, choice[None]))",
                    "            pass\n        written = torch.cat((written, choice[None]))",
                ),
                ("return len(written) - prompt", "return int((written == tokens).sum()) - prompt"),
            ],
            "One mistake ends",
        ),
        ("the first window", [("written[-window:]", "written[:window]")], "not the first"),
        (
            "the tokens",
            [("return len(written) - prompt", "return written[prompt:]")],
            "Return a number, not the tokens",
        ),
    ],
}
