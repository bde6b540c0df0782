"""What the checks of notebook 8 ask; those that need a model or a part of it are in `notebook_08_models.py`."""

from unittest import mock

import torch
from torch import Tensor

from helpers.workbook.check import NOTHING, WrongError, expect, refuse
from helpers.workbook.notebook_08_models import exercise_8_2, exercise_8_4

__all__ = ["exercise_8_1", "exercise_8_2", "exercise_8_3", "exercise_8_4", "exercise_8_5", "exercise_8_6"]


def exercise_8_1(roofline) -> str:
    """Tokens per second: the lower of two bounds."""
    found = roofline(1, 1000, 4, 8000, 1e9)
    refuse(found is None, NOTHING)
    for slip, says in (
        (4000.0, "that is operations per second, and a token takes two per weight"),
        (4.0, "a token takes two operations per weight"),
        (1.0, "a weight is used in two operations per token, so the intensity is 2n / size"),
        (500_000.0, "you take the higher of the two bounds, or the arithmetic alone"),
        (0.5, "that is seconds per token"),
    ):
        refuse(abs(float(found) - slip) < 1e-6, f"roofline(1, 1000, 4, 8000, 1e9) is 2.0, not {slip:g}: {says}.")
    both = "You add the time of reading and that of arithmetic. They overlap: the slower one counts, not their sum."
    refuse(1e-6 < 2 - float(found) < 1e-3, both)
    expect(found, 2.0, "One reading of 4,000 bytes takes half a second: {wanted} tokens per second, not {found}.", 1e-6)
    found = roofline(3, 1000, 4, 8000, 1e9)
    refuse(
        abs(float(found) - 2) < 1e-6, "Three tokens share a reading: 6 tokens per second, and you count 2, of passes."
    )
    expect(found, 6.0, "Three tokens in each pass: {wanted} tokens per second, not {found}.", 1e-6)
    bytes_ = "With one byte per weight a reading takes an eighth of a second: {wanted} tokens per second, not {found}."
    expect(roofline(1, 1000, 1, 8000, 1e9), 8.0, bytes_, 1e-6)
    peak = "With 10,000 operations per second, 2,000 per token, no more than {wanted} tokens are possible, not {found}."
    expect(roofline(3, 1000, 4, 8000, 10_000), 5.0, peak, 1e-6)
    found = roofline(16, 124_439_808, 4, 33.7e9, 3e11)
    expect(found, 1083.26, "GPT-2 in fp32, 16 tokens per pass: {wanted} tokens per second, not {found}.", 0.02)
    return "It is the lower of what reading and what arithmetic allows."


def exercise_8_3(quantize_by_row) -> str:
    """int8 values and a scale for each row."""
    matrix = torch.tensor([[0.31, -0.04, 0.002, 1.27], [-2.54, 0.0, 0.02, 1.27]])
    before = matrix.clone()
    found = quantize_by_row(matrix)
    refuse(found is None, NOTHING)
    pair = isinstance(found, tuple | list) and len(found) == 2 and all(isinstance(part, Tensor) for part in found)
    refuse(not pair, "Two tensors are wanted: `return values, scales`.")
    refuse(
        not torch.equal(matrix, before), "Your function changes the matrix itself: the model would lose its weights."
    )
    values, scales = found
    scale = "One scale per row is wanted, (rows, 1). Over which dimension do you take the largest? And `keepdim=True`."
    refuse(tuple(scales.shape) != (2, 1), f"The scales' shape is {tuple(scales.shape)}. {scale}")
    for slip, says in (
        ([[1.27 / 127], [1.27 / 127]], "The largest *size* decides: -2.54 is the largest of its row. Use abs() first."),
        ([[1.27 / 128], [2.54 / 128]], "Divide by 127: at 128 the largest weight would not fit, int8 ends at 127."),
        ([[1.27 / 255], [2.54 / 255]], "Divide by 127: 255 is for whole numbers from 0 on, and these have a sign."),
        ([[2.54 / 127], [2.54 / 127]], "Both rows have the same scale: each row has its own largest weight."),
    ):
        refuse(torch.allclose(scales, torch.tensor(slip), atol=1e-6), says)
    expect(scales, torch.tensor([[0.01], [0.02]]), "The scales are {wanted}, not {found}.", 1e-6)
    refuse(values.dtype != torch.int8, f"The values are {values.dtype}: store them as torch.int8, one byte each.")
    cut, _ = quantize_by_row(torch.tensor([[1.27, 0.556]]))
    refuse(int(cut[0, 1]) == 55, "55.6 became 55: int8 keeps what stands before the point. Round first.")
    added = "63.5 became 63: is something added to every scale? Only a row of zeros needs it: clamp."
    refuse(int(values[1, 3]) == 63, added)
    expect(values, torch.tensor([[31, -4, 0, 127], [-127, 0, 1, 64]]), "The values are {wanted}, not {found}.")
    values, scales = quantize_by_row(torch.tensor([[0.0, 0.0], [3.0, -1.0]]))
    nan = "A row of zeros: 0 / 0 is NaN, and what int8 makes of NaN is by chance. Keep the scale above 0."
    refuse(not scales.isfinite().all() or not (scales[0] > 0).all(), nan)
    expect(values, torch.tensor([[0, 0], [127, -42]]), "[[0, 0], [3, -1]] should give {wanted}, not {found}.")
    values, _ = quantize_by_row(torch.tensor([[1e-4, -5e-5]]))
    small = "A row of small weights, [1e-4, -5e-5], gives {found}: your lower limit is larger than its scale."
    expect(values, torch.tensor([[127, -64]]), small)
    weights = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    values, scales = quantize_by_row(weights)
    off = ((values * scales - weights).abs() / scales).max().item()
    refuse(off > 0.501, f"Of 8 random rows a weight is off by {off:.2f} of its row's scale: more than half.")
    return "No weight is off by more than half of its row's scale."


def exercise_8_5(acceptance) -> str:
    """The two halves of the rule, and that together they make p."""
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
    found = acceptance(p, q)
    refuse(found is None, NOTHING)
    refuse(not isinstance(found, tuple | list) or len(found) != 2, "Two tensors are wanted: `return accepted, redraw`.")
    accepted, redraw = (torch.as_tensor(part) for part in found)
    for slip, says in (
        (p / q, "A probability above 1: of p/q and 1 the lower one counts."),
        ((q / p).clamp(max=1), "You divide q by p. A token that is drafted too often, q > p, is to be accepted less."),
        (p, "Accepted with p(d): that is the rule for a looked-up draft. Here q decides, too."),
    ):
        refuse(accepted.shape == slip.shape and torch.allclose(accepted, slip, atol=1e-4), says)
    expect(accepted, torch.tensor([1, 1, 0.4]), "The probabilities of acceptance are {wanted}, not {found}.", 1e-4)
    for slip, says in (
        (p, "You redraw from p: the tokens accepted before would be counted twice. What has p more than q?"),
        ((p - q).clamp(min=0), "What p has more than q is right, but a distribution sums to 1: divide by the sum."),
        ((p - q).abs() / 0.6, "The third token has p < q: what p has *more* is 0 there, so clamp, not abs."),
        ((q - p).clamp(min=0) / 0.3, "That is what q has more than p. The other way round."),
    ):
        refuse(redraw.shape == slip.shape and torch.allclose(redraw, slip, atol=1e-4), says)
    expect(redraw, torch.tensor([1.0, 0, 0]), "A rejected token is redrawn from {wanted}, not {found}.", 1e-4)
    g = torch.Generator().manual_seed(0)
    p, q = torch.rand(2, 6, generator=g).double()
    p[1] = q[1] = q[2] = 0
    p, q = p / p.sum(), q / q.sum()
    for name, drafts in (("q(d) = 0 for two tokens", q), ("p = q", p), ("q(d) = 1", torch.eye(6).double()[0])):
        accepted, redraw = acceptance(p.clone(), drafts.clone())
        nan = "a NaN arises: somewhere 0 is divided by 0. Keep the divisor above 0."
        refuse(bool((accepted.isnan() | redraw.isnan()).any()), f"Where {name}, {nan}")
        at_once = drafts * accepted
        made = at_once + (1 - at_once.sum()) * redraw
        expect(made, p, f"Where {name}, what is accepted and what is redrawn do not make p together.", 1e-4)
    return "What is accepted and what is redrawn make p, exactly."


def exercise_8_6(stream) -> str:
    """Strings as they can be shown, from bytes as they come."""
    with mock.patch("codecs.getincrementaldecoder", side_effect=WrongError("Without `codecs`: this is its work.")):
        found = stream([b"a", b"b"])
    refuse(found is None, NOTHING)
    refuse(isinstance(found, str), "A string per token is wanted, in a list, as nobody waits for the end of the text.")
    refuse(not isinstance(found, list), f"A list is wanted, not a {type(found).__name__}.")
    expect(found, ["a", "b"], "stream([b'a', b'b']) is {wanted}, not {found}.")
    pieces = [b"\xf0\x9f", b"\xa6", b"\x89", b"!"]
    found = list(stream(list(pieces)))
    refuse("\ufffd" in "".join(found), "You show a half character as �, and what has been shown cannot be taken back.")
    refuse(
        "🦉" not in "".join(found) and "!" in found, "The bytes of the owl got lost: hold them until the rest comes."
    )
    refuse(
        len(found) != 4, f"Four tokens, and {len(found)} strings: where nothing can be shown yet, it is an empty one."
    )
    refuse("🦉" in found[3], "The owl is whole with its third token, and you show it with the fourth, or twice.")
    expect(found, ["", "", "🦉", "!"], "For the owl's three tokens and `!`: {wanted}, not {found}.")
    early = "`a` is whole, and waits in yours until the half character behind it is: {wanted}, not {found}."
    expect(list(stream([b"a\xc3", b"\xa9", b"!"])), ["a", "é", "!"], early)
    more = "The whole letters wait in yours: of a character two bytes can be missing, or three. {wanted}, not {found}."
    expect(stream([b"a\xe2\x82", b"\xac"]), ["a", "€"], more)
    expect(stream([b"ab\xf0\x9f", b"\xa6\x89"]), ["ab", "🦉"], more)
    both = "A token may end one character and begin another: {wanted}, not {found}."
    expect(list(stream([b"\xc3", b"\xa9\xc3", b"\xa9"])), ["", "é", "é"], both)
    text = "naïve 🦉🦉, “é” ½ 漢字"
    for size in (1, 2, 3, 5):
        pieces = [text.encode()[i : i + size] for i in range(0, len(text.encode()), size)]
        cut = (
            f"In pieces of {size} byte{'s' * (size > 1)} the text comes out as {{found}}: count bytes, not characters."
        )
        expect("".join(stream(pieces)), text, cut)
    return "Every character is shown as soon as it is whole, and none before."
