"""What the checks of the graded assignment ask."""

import torch
from torch import Tensor, nn

from helpers.config import GPTConfig
from helpers.memorization import corpus_loss, loss_floor
from helpers.model import GPT
from helpers.workbook.check import expect, refuse


class KnowsAfter(nn.Module):
    """Goes on with the next number, once it has read at least `context` tokens; before that it says 0."""

    def __init__(self, context: int, n_vocab: int = 40) -> None:
        super().__init__()
        self.context, self.n_vocab = context, n_vocab
        self.trained = False  # whether it has been called in training mode

    def forward(self, idx: Tensor, _: Tensor | None = None) -> tuple[Tensor, None]:
        """As a GPT: (B, T) to logits (B, T, V)."""
        self.trained |= self.training
        new = (idx + 1) % self.n_vocab
        new[:, : self.context - 1] = 0
        return nn.functional.one_hot(new, self.n_vocab).float(), None


def exercise_a_1(extraction_curve) -> str:
    """The share of places that are recited, against the tokens given."""
    tokens, starts = torch.arange(1, 37), [0, 5, 9, 20]
    found = extraction_curve(KnowsAfter(1), tokens, [2], 3, starts)
    expect(type(found), list, "A list is wanted, a share for each k; yours is a {found}.")
    expect(found, [1.0], "A model that knows everything after one token recites every place: [1.0], not {found}.")
    broken = torch.arange(1, 37)
    broken[24] = 7  # the place at 20 says 21, 22, 23, 24, then not 25
    found = extraction_curve(KnowsAfter(1), broken, [2], 3, starts)
    refuse(found == [11 / 12], "A place counts if all n tokens are right; you count single tokens.")
    expect(found, [0.75], "One of four places has a wrong third token: 0.75, not {found}. Do all n tokens count?")
    found = extraction_curve(KnowsAfter(4), tokens, [2, 3, 4, 8], 3, starts)
    slip = "A model that needs 4 tokens knows nothing after 2 or 3, all after 4: {wanted}, not {found}. "
    expect(found, [0.0, 0.0, 1.0, 1.0], slip + "Is the first choice that counts the one behind token k?")
    model = KnowsAfter(1).train()
    extraction_curve(model, tokens, [2], 1, [0])
    refuse(model.trained, "Your function measures a model in training mode, with dropout: call model.eval() first.")
    return "For each number of given tokens, it counts the places at which every one of the n tokens is right."


def exercise_a_2(repeated_share) -> str:
    """The share of places whose passage returns."""
    expect(repeated_share([1, 2, 3, 4], 2), 0.0, "In 1 2 3 4 nothing returns: 0.0, not {found}.")
    found = repeated_share([1, 2, 3, 1, 2, 4], 2)
    close = found is not None and abs(found - 0.2) < 1e-9
    refuse(close, "Both places of `1 2` count, not just the second: 2 of 5, yours is 0.2.")
    refuse(found is not None and abs(found - 1 / 4) < 1e-9, "Count places, not different passages: 2 of 5.")
    refuse(found is not None and abs(found - 2 / 6) < 1e-9, "Six tokens have five places for two of them: 2 of 5.")
    expect(found, 0.4, "In 1 2 3 1 2 4, `1 2` stands at two of five places: 0.4, not {found}.", 1e-9)
    expect(repeated_share([7, 7, 7], 2), 1.0, "Passages may overlap: 7 7 stands twice in 7 7 7. Yours is {found}.")
    three = "Passages of three return nowhere in 1 2 3 1 2 4: 0.0, not {found}. Are yours n tokens long?"
    expect(repeated_share([1, 2, 3, 1, 2, 4], 3), 0.0, three)
    expect(repeated_share([1, 2, 1, 2, 1, 2], 1), 1.0, "With n = 1 every token here returns: 1.0, not {found}.")
    return "It counts every place of a passage that stands in the text more than once."


def exercise_a_3(report) -> str:
    """Five numbers."""
    for seed in (0, 1):  # of one text the grid is the harder half, of the other its shift
        _reported(report, seed)
    return "A reader of these five numbers sees what windows can hide."


def _reported(report, seed: int) -> None:
    tokens = torch.randint(20, (400,), generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(1)
    model = GPT(GPTConfig(block_size=48, vocab_size=20, n_layer=1, n_head=2, n_embd=16)).eval()
    found = report(model, tokens.clone(), 48)
    grids = [corpus_loss(model, tokens, 48, shift) for shift in (0, 24)]
    wanted = {"loss_grid": grids[0].mean, "loss_shifted": grids[1].mean}
    wanted |= {f"floor_{policy}": loss_floor(tokens, 48, policy).mean for policy in ("grid", "random")}
    wanted["after_32"] = max(loss.after(32) for loss in grids)
    expect(isinstance(found, dict), True, "A dictionary is wanted.")
    missing = [name for name in wanted if name not in found]
    refuse(bool(missing), f"These keys are missing: {', '.join(missing)}.")
    expect(
        found["loss_grid"], wanted["loss_grid"], "`loss_grid` should be {wanted}, not {found}: the mean, shift 0.", 1e-6
    )
    expect(found["loss_shifted"], wanted["loss_shifted"], "`loss_shifted` is shifted by half a window, here 24.", 1e-6)
    for policy in ("grid", "random"):
        name = f"floor_{policy}"
        expect(
            found[name], wanted[name], f"`{name}` should be {{wanted}}, not {{found}}: which windows is it of?", 1e-6
        )
    expect(found["after_32"], wanted["after_32"], "`after_32` is the higher of the two grids, by .after(32).", 1e-6)
