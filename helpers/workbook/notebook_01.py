"""What the checks of notebook 1 ask."""

import math
from collections.abc import Mapping

import torch

from helpers.memorization import loss_floor
from helpers.windows import grid
from helpers.workbook.check import NOTHING, expect, refuse


def exercise_1_1(count_pairs) -> str:
    """Pairs of neighbouring bytes, counted inside words that are split first."""
    found = count_pairs("ab")
    refuse(not isinstance(found, Mapping), "A Counter is wanted: of each pair, how often it occurs.")
    key = next(iter(found), None)
    refuse(key is None, "In `ab` there is one pair, (97, 98); yours is empty. Split, encode, then count neighbours.")
    refuse(not isinstance(key, tuple), f"Your keys are like {key!r}: a pair of bytes is wanted, (97, 98) for `ab`.")
    message = f"Your pairs are like {key!r}: pairs of bytes are wanted, (97, 98) for `ab`. `word.encode()` gives bytes."
    refuse(isinstance(key[0], str), message)
    refuse((98, 97) in found, "`ba` is not in `ab`: a pair is a byte and the one after it.")
    _pairs(found, {(97, 98): 1}, "In `ab` the pair (97, 98) occurs once: {wanted}, not {found}.")
    found = count_pairs("ab ba")
    crossing = (
        "In `ab ba` your pairs cross from one word to the next, as (98, 32) does. Split by PATTERN before you count."
    )
    refuse(_n(found, 98, 32) > 0, crossing)
    one = "In `ab ba` you count the first word alone: is your `return` inside a loop?"
    refuse(_n(found, 98, 97) == 0, one)
    space = "In `ab ba` the second word is `·ba`: the space belongs to it, so (32, 98) is a pair. PATTERN splits so."
    refuse(_n(found, 32, 98) == 0, space)
    found = count_pairs("to to to")
    distinct = (
        "The word `·to` occurs twice in `to to to`, and your count of (32, 116) is {found}: a pair counts as often."
    )
    expect(_n(found, 32, 116), 2, distinct)
    found = count_pairs("aaaa")
    expect(
        _n(found, 97, 97), 3, "In `aaaa` the pair `aa` begins at three places, you count {found}. Do you add, with +=?"
    )
    found = count_pairs("é")
    expect(_n(found, 195, 169), 1, "`é` is two bytes in UTF-8, so it holds a pair, (195, 169); you count {found}.")
    wanted = {(116, 111): 2, (32, 98): 2, (98, 101): 2, (32, 116): 1}
    _pairs(count_pairs("to be to be"), wanted, "For `to be to be` it should be {wanted}, and is {found}.")
    return "It splits first, and counts what is inside a word as often as the word occurs."


def _n(found, a: int, b: int) -> int:
    return found.get((a, b), 0)


def _pairs(found, wanted: dict, otherwise: str) -> None:
    expect({pair: n for pair, n in found.items() if n}, wanted, otherwise)


def exercise_1_2(bpe) -> str:
    """Byte-pair encoding with given ranks."""
    ranks = {b"a": 0, b"b": 1, b"c": 2, b"bc": 3, b"ab": 4, b"aa": 5}
    expect(bpe(b"a", ranks), [0], "A word of one byte has no neighbours: bpe(b'a', …) is [0], yours is {found}.")
    expect(bpe(b"acb", ranks), [0, 2, 1], "No two neighbours in `acb` are a token together: {wanted}, not {found}.")
    expect(bpe(b"ab", ranks), [4], "`ab` is a token, 4; yours is {found}.")
    found = bpe(b"abc", ranks)
    refuse(found == [4, 2], "In `abc` you join `ab` (4) before `bc` (3). The lowest rank goes first, wherever it is.")
    expect(found, [0, 3], "In `abc` the join of the lowest rank is `bc` (3): {wanted}, not {found}.")
    found = bpe(b"abab", ranks)
    refuse(found == [4, 0, 1], "bpe(b'abab', …) stops after one join: look again, until no two neighbours are a token.")
    expect(found, [4, 4], "`abab` holds `ab` twice: {wanted}, not {found}.")
    expect(bpe(b"aaa", ranks), [5, 0], "Of equal ranks the first place is joined: `aaa` is `aa` and `a`, not {found}.")
    ranks |= {b"abc": 6}
    expect(bpe(b"abc", ranks), [6], "A joined piece may be joined again: `a` and `bc` make `abc` (6), not {found}.")
    return "It joins what was learnt first, wherever it stands, until nothing can be joined."


def exercise_1_3(my_grid) -> str:
    """Starts and lengths of windows on a grid."""
    starts, lengths = _two(my_grid(9, 4, 0), "starts and lengths")
    last = "Nine tokens hold eight predictions. Your last window begins at 8, the last token: nothing comes after it."
    refuse(8 in starts, last)
    expect(starts, [0, 4], "Nine tokens in windows of four, offset 0: the starts are {wanted}, not {found}.")
    expect(lengths, [4, 4], "Nine tokens in windows of four, offset 0: the lengths are {wanted}, not {found}.")
    starts, lengths = _two(my_grid(10, 4, 0), "starts and lengths")
    refuse(starts == [0, 4], "Of ten tokens the last is no target in your windows: a short one at the end takes it.")
    expect(starts, [0, 4, 8], "Ten tokens in windows of four, offset 0: the starts are {wanted}, not {found}.")
    long = "Ten tokens in windows of four: the window at 8 has one target. The lengths are {wanted}, not {found}."
    expect(lengths, [4, 4, 1], long)
    starts, lengths = _two(my_grid(10, 4, 2), "starts and lengths")
    refuse(0 not in starts, "With offset 2 the tokens 1 and 2 are targets nowhere: a short window begins at 0.")
    expect(starts, [0, 2, 6], "Ten tokens, windows of four, offset 2: the starts are {wanted}, not {found}.")
    expect(lengths, [2, 4, 3], "Offset 2: each window ends where the next begins: lengths {wanted}, not {found}.")
    for n, T, offset in ((4, 4, 3), (2, 5, 0), (23, 5, 4), (23, 1, 0)):
        for found, wanted in zip(_two(my_grid(n, T, offset), "starts and lengths"), grid(n, T, offset), strict=True):
            expect(found, wanted.tolist(), f"my_grid({n}, {T}, {offset}) holds {{found}} where {{wanted}} is right.")
    return "Each token but the first is a target exactly once, at every offset."


def _two(found, of_what: str) -> list[list]:
    """A pair, as lists: of lists, tuples, ranges or tensors."""
    refuse(found is None, NOTHING)
    pair = isinstance(found, tuple | list) and len(found) == 2 and all(hasattr(part, "__len__") for part in found)
    refuse(not pair, f"Two things are wanted, {of_what}: `return a, b`.")
    return [part.tolist() if hasattr(part, "tolist") else list(part) for part in found]


def exercise_1_4(my_slices) -> str:
    """Inputs and targets, of which short windows have fewer."""
    ids = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
    x, y = _windows(my_slices(list(ids), [4], [4], 4))
    refuse(x == [ids[5:9]] and y == [ids[4:8]], "Inputs first, then targets: yours are the other way round.")
    refuse(y == [ids[4:8]], "Your targets are the inputs again: a model would learn to repeat. Begin one place later.")
    expect(x, [ids[4:8]], "The inputs of the window at 4 are the tokens 4 to 7, {wanted}, not {found}.")
    shift = "The target of a place is the token after it: for the window at 4 {wanted}, not {found}."
    expect(y, [ids[5:9]], shift)
    x, y = _windows(my_slices(list(ids), [0, 2], [2, 4], 4))
    refuse(len(y) != 2, f"Two windows are asked for, and your targets have {len(y)}. Append inside the loop.")
    short = "A window of length 2 has two targets, and what lacks to T = 4 must be filled with -100: yours is {found}."
    expect(len(y[0]) == 4 or y[0], True, short)
    twice = "The window at 0 has the length 2, and yours has targets behind that: the next window predicts them, too."
    refuse(y[0] == ids[1:5], twice)
    refuse(y[0] == [11, 12, 0, 0], "Fill targets with -100, which the loss ignores. From 0 it would learn token 0.")
    expect(y, [[11, 12, -100, -100], ids[3:7]], "Starts 0 and 2, lengths 2 and 4: targets {wanted}, not {found}.")
    refuse(
        len(x[0]) != 4, f"The inputs of a short window are {len(x[0])} tokens: fill them up to T = 4, by any number."
    )
    expect(x[0][:2], ids[:2], "The inputs of the window at 0 begin with the tokens 0 and 1, {wanted}, not {found}.")
    below = f"Inputs are filled with a token's id, such as 0: {min(x[0])} would be looked up in the embedding matrix."
    refuse(min(x[0]) < 0, below)
    x, y = _windows(my_slices(list(ids), [8], [1], 4))
    end = f"At the text's end (start 8, length 1) your inputs are {len(x[0])} numbers long, not 4: fill them up."
    refuse(len(x[0]) != 4, end)
    expect([y, x[0][:1]], [[[19, -100, -100, -100]], [18]], "At the text's end (start 8, length 1): not {found}.")
    return "Every target is the token after its input, and what fills a window up is ignored by the loss."


def _windows(found) -> list[list]:
    """Inputs and targets, as lists of lists of numbers."""
    both = _two(found, "inputs and targets")
    return [[torch.as_tensor(list(window)).tolist() for window in part] for part in both]


def exercise_1_5(count_epochs) -> str:
    """Windows, steps and epochs, the tail included."""

    def asked(n: int, T: int, batch_size: int, steps: int) -> tuple:
        found = count_epochs(n, T, batch_size, steps)
        refuse(found is None, NOTHING)
        three = isinstance(found, tuple | list) and len(found) == 3
        refuse(not three, "Three numbers are wanted: windows in an epoch, steps in an epoch, epochs.")
        return tuple(found)

    windows, per_epoch, epochs = asked(10, 4, 2, 6)
    tail = (
        "Ten tokens in windows of four are 3 windows (4, 4 and 1 predictions), not {found}: the short one counts, too."
    )
    expect(windows, 3, tail)
    up = "Nine tokens hold eight predictions: exactly two windows of four, not 3. Round up, do not add one."
    refuse(windows == 3 and asked(9, 4, 2, 6)[0] == 3 and asked(8, 4, 2, 6)[0] == 2, up)
    expect(asked(9, 4, 2, 6)[0], 2, "Nine tokens hold eight predictions, two windows of four, not {found}: use n - 1.")
    refuse(
        per_epoch == 2, "Three windows in batches of two are 1.5 steps per epoch, not 2: a batch may end in the next."
    )
    refuse(per_epoch == 1, "Three windows in batches of two are 1.5 steps per epoch, not 1: `//` drops a window.")
    expect(per_epoch, 1.5, "Three windows in batches of two are {wanted} steps per epoch, not {found}.", 1e-4)
    expect(epochs, 4.0, "Six steps, at 1.5 steps per epoch, are {wanted} epochs, not {found}.", 1e-9)
    expect(asked(10, 4, 2, 5)[2], 5 / 1.5, "Five steps, at 1.5 steps per epoch, are 3.33 epochs, not {found}.", 1e-4)
    for n, T, batch_size, steps in ((5174, 128, 8, 340), (338_025, 512, 8, 9600)):
        windows = len(grid(n, T)[0])
        wanted = (float(windows), windows / batch_size, steps * batch_size / windows)
        numbers = f"count_epochs({n}, {T}, {batch_size}, {steps})"
        expect(asked(n, T, batch_size, steps), wanted, f"{numbers} should be {{wanted}}, and is {{found}}.", 1e-3)
    return "No window is dropped, and no step is rounded."


def exercise_1_6(my_floor) -> str:
    """The conditional entropy of windows, per prediction."""
    found = my_floor([5, 5, 5, 5, 5, 5], 2)
    expect(found, 0.0, "Of six equal tokens every window is the same, so the floor is 0, not {found}. Is "
           "every window T + 1 long, the last as well?", 1e-4)  # fmt: skip
    toy, third = [0, 1, 0, 2], math.log(2) / 3
    found = float(my_floor(list(toy), 1))
    for slip, says in (
        (math.log(3), "that is H(x₀, x₁): how a window begins is known to the model, so H(x₀) is to be subtracted."),
        (-2 * third, "your two entropies stand the other way round."),
        (math.log(3) - 1.5 * math.log(2), "you count 4 firsts and 3 windows: the last token begins no window."),
        (2 / 3, "that is in bits: the series counts in nats."),
        (0.0, "are your windows T + 1 tokens long, and three of them counted?"),
    ):
        refuse(abs(found - slip) < 1e-9, f"For `a b a c` you get {found:.4f}, and 0.4621 is right: {says}")
    expect(found, 2 * third, f"For `a b a c` and T = 1 it should be 0.4621, and is {found:.4f}.", 1e-4)
    ids = torch.randint(3, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    for T in (2, 5):
        wanted, found = loss_floor(torch.tensor(ids), T, "random").mean, my_floor(list(ids), T)
        long = f"On 40 tokens your floor for T = {T} is {T} times too high: it is a mean over the T predictions."
        refuse(abs(float(found) - T * wanted) < 1e-9, long)
        slip = f"On 40 random tokens the floor for T = {T} is {wanted:.4f}, yours {float(found):.4f}. "
        slip += "Is each window T + 1 tokens long, and is every start from 0 to n - T - 1 counted, one by one?"
        expect(float(found), wanted, slip, 1e-4)
    return "It is what even a model that knows every window by heart cannot know."
