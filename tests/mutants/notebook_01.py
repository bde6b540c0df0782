"""Wrong answers to the exercises of notebook 1."""

MUTANTS = {
    "1.1": [
        (
            "without splitting",
            [("Counter(regex.findall(PATTERN, text)).items()", "[(text, 1)]")],
            "cross from one word to the next",
        ),
        ("each word once", [("pairs[pair] += n", "pairs[pair] += 1")], "occurs twice in `to to to`"),
        ("assigned", [("pairs[pair] += n", "pairs[pair] = n")], r"begins at three places, you count 1"),
        ("characters", [("pairwise(word.encode())", "pairwise(word)")], r"pairs are like \('a', 'b'\)"),
        (
            "split at the spaces",
            [("regex.findall(PATTERN, text)", "text.split()")],
            r"the space belongs to it, so \(32, 98\)",
        ),
        (
            "codes of characters",
            [("pairwise(word.encode())", "pairwise(map(ord, word))")],
            "is two bytes in UTF-8",
        ),
        (
            "the words",
            [("    return pairs\n", "    return Counter(regex.findall(PATTERN, text))\n")],
            "keys are like 'ab'",
        ),
        ("pieces", [("pairs[pair]", "pairs[bytes(pair)]")], r"keys are like b'ab'"),
        (
            "return too deep",
            [("    return pairs\n", "        return pairs\n")],
            "the first word alone",
        ),
    ],
    "1.2": [
        (
            "one join",
            [("[parts[i] + parts[i + 1]]\n", "[parts[i] + parts[i + 1]]\n        return [ranks[p] for p in parts]\n")],
            "one join",
        ),
        ("leftmost first", [("(ranks[parts[i] + parts[i + 1]], i)", "(0, i)")], "`ab` .4. before `bc`"),
        ("highest rank first", [("min(candidates)", "max(candidates)")], "`ab` .4. before `bc`"),
        (
            "last of equals",
            [("parts[i + 1]], i))", "parts[i + 1]], -i))"), ("_, i = min(candidates)", "i = -min(candidates)[1]")],
            "first place",
        ),
        ("rank of the pair", [("if parts[i] + parts[i + 1] in", "if parts[i] in")], "stops with KeyError.*line"),
        ("no return", [("return [ranks[part] for part in parts]", "return None")], "returns nothing"),
    ],
    "1.3": [
        ("one start too many", [("range(offset, n - 1, T)", "range(offset, n, T)")], "begins at 8, the last token"),
        (
            "tail dropped",
            [("range(offset, n - 1, T)", "range(offset, n - T, T)"), ("n - 1], strict", "starts[-1] + T], strict")],
            "the last is no target in your windows",
        ),
        ("all of one length", [("end - start", "T")], r"the window at 8 has one target"),
        ("counted to n", [("n - 1], strict", "n], strict")], r"Nine tokens .* the lengths are \[4, 4\], not \[4, 5\]"),
        ("nothing before the offset", [("starts = [0, *starts]", "pass")], "tokens 1 and 2 are targets nowhere"),
        ("a window before offset 0", [("if offset > 0:", "if True:")], r"starts are \[0, 4\], not \[0, 0, 4\]"),
        (
            "ends in place of lengths",
            [("lengths.append(end - start)", "lengths.append(end)")],
            r"lengths are \[4, 4\], not \[4, 8\]",
        ),
        ("starts alone", [("return starts, lengths", "return starts")], "Two things are wanted, starts and lengths"),
    ],
    "1.4": [
        ("not shifted", [("start + 1 : start + length + 1", "start : start + length")], "targets are the inputs again"),
        (
            "shifted by two",
            [("start + 1 : start + length + 1", "start + 2 : start + length + 2")],
            "the token after it",
        ),
        ("filled with 0", [("[-100] * filling", "[0] * filling")], "would learn token 0"),
        ("targets not filled", [(" + [-100] * filling", "")], "lacks to T = 4 must be filled with -100"),
        ("inputs not filled", [(" + [0] * filling", "")], r"fill them up to T = 4"),
        ("inputs filled with -100", [("[0] * filling", "[-100] * filling")], "looked up in the embedding matrix"),
        (
            "length ignored",
            [
                ("filling = T - length", "filling = max(0, start + T - len(tokens) + 1)"),
                ("start + length + 1]", "start + T + 1]"),
                ("start + length] ", "start + T] "),
            ],
            "the next window predicts them, too",
        ),
        ("swapped", [("return x, y", "return y, x")], "the other way round"),
        ("return in the loop", [("    return x, y", "        return x, y")], "Two windows are asked for"),
    ],
    "1.5": [
        ("tail dropped", [("math.ceil((n - 1) / T)", "(n - 1) // T")], "the short one counts, too"),
        ("one prediction too many", [("math.ceil((n - 1) / T)", "math.ceil(n / T)")], "hold eight predictions"),
        ("steps rounded up", [("windows / batch_size", "math.ceil(windows / batch_size)")], "not 2: a batch may end"),
        ("steps rounded down", [("windows / batch_size", "windows // batch_size")], "drops a window"),
        ("epochs rounded", [("steps / per_epoch", "steps // per_epoch")], "Five steps"),
        ("steps and windows", [("steps / per_epoch", "steps / windows")], "Six steps, at 1.5 steps per epoch"),
        ("no rounding at all", [("math.ceil((n - 1) / T)", "(n - 1) / T")], r"not 2\.25"),
        ("two numbers", [("windows, per_epoch, steps / per_epoch", "windows, per_epoch")], "Three numbers are wanted"),
    ],
    "1.6": [
        ("not per token", [(" / T\n", "\n")], "2 times too high"),
        ("windows of T tokens", [("start + T + 1])", "start + T])")], r"windows T \+ 1 tokens long"),
        ("the first not known", [("entropy(windows) - entropy(firsts)", "entropy(windows)")], "is to be subtracted"),
        (
            "firsts of the whole text",
            [("entropy(firsts)", "entropy(Counter(tokens))")],
            "the last token begins no window",
        ),
        (
            "the other way round",
            [("entropy(windows) - entropy(firsts)", "entropy(firsts) - entropy(windows)")],
            "other way round",
        ),
        ("on the grid", [("range(len(tokens) - T)", "range(0, len(tokens) - T, T)")], "counted, one by one"),
        ("lists", [("tuple(tokens[start : start + T + 1])", "tokens[start : start + T + 1]")], "stops with TypeError"),
        (
            "bits",
            [
                (
                    "(entropy(windows) - entropy(firsts)) / T",
                    "(entropy(windows) - entropy(firsts)) / T / 0.6931471805599453",
                )
            ],
            "in bits",
        ),
    ],
}
