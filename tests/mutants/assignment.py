"""Wrong answers to the exercises of the graded assignment."""

MUTANTS = {
    "A.1": [
        (
            "counts tokens",
            [
                (
                    "exact += bool((said == tokens[start + k : start + k + n]).all())",
                    "exact += (said == tokens[start + k : start + k + n]).float().mean().item()",
                )
            ],
            "all n tokens",
        ),
        ("any instead of all", [(".all())", ".any())")], "third token"),
        ("one place too late", [("logits[0, k - 1 :]", "logits[0, k:]")], "stops with RuntimeError.*line"),
        (
            "one place too early",
            [
                ("x = tokens[start : start + k + n - 1]", "x = tokens[start : start + k + n]"),
                ("logits[0, k - 1 :]", "logits[0, k - 2 : k + n - 2]"),
            ],
            "stops with|needs 4 tokens|recites every place",
        ),
        ("training mode", [("    model.eval()\n", "    model.train()\n")], "training mode"),
        ("not a list", [("    return shares", "    return torch.tensor(shares)")], "A list is wanted"),
    ],
    "A.2": [
        ("the second place only", [("sum(count for", "sum(count - 1 for")], "Both places"),
        (
            "different passages",
            [
                (
                    "sum(count for count in passages.values() if count > 1)",
                    "sum(1 for count in passages.values() if count > 1)",
                ),
                ("passages.total()", "len(passages)"),
            ],
            "not different passages",
        ),
        ("divides by the tokens", [("passages.total()", "len(ids)")], "2 of 5|0.4, not"),
        ("one place missing", [("len(ids) - n + 1", "len(ids) - n")], "0.4, not|stops with|2 of 5|overlap"),
        ("always pairs", [("ids[i : i + n]", "ids[i : i + 2]")], "n tokens long"),
        ("no overlap", [("range(len(ids) - n + 1)", "range(0, len(ids) - n + 1, n)")], "0.4, not|2 of 5|overlap"),
    ],
    "A.3": [
        ("best of two", [("max(loss", "min(loss")], "higher of the two"),
        (
            "the shifted grid only",
            [("max(loss.after(32) for loss in grids)", "grids[1].after(32)")],
            "higher of the two",
        ),
        ("the first grid only", [("max(loss.after(32) for loss in grids)", "grids[0].after(32)")], "higher of the two"),
        ("not shifted", [("window // 2)", "0)")], "half a window"),
        (
            "floors swapped",
            [('loss_floor(tokens, window, "grid").mean', 'loss_floor(tokens, window, "random").mean')],
            "`floor_grid`.*which windows",
        ),
        ("a key missing", [('"after_32"', '"after"')], "keys are missing: after_32"),
        ("by position", [("grids[0].mean", "grids[0].after(1)")], "`loss_grid` should be"),
    ],
}
