"""Models that the checks of notebook 5 hand to a learner's function: they note how they are called."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.config import GPTConfig
from helpers.model import GPT
from helpers.workbook.check import refuse

TEXT = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8])  # twelve tokens of a vocabulary of ten
BOOK = torch.arange(20)  # a text that counts: after token t comes t + 1


class Watched(nn.Module):
    """A model that notes whether it is called in training mode or with gradients, and how much it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.gradients = self.trained = False
        self.longest = 0  # tokens that it was given at once

    def note(self, x: Tensor) -> None:
        """Called by each forward pass. Raises WrongError where x is no batch."""
        refuse(x.dim() != 2, "The model reads batches of windows, (B, t): x[None] is a batch of one.")
        empty = "You give the model an empty window: with shift=0 no short one comes before the first."
        refuse(x.numel() == 0, empty)
        self.gradients |= torch.is_grad_enabled()
        self.trained |= self.training
        self.longest = max(self.longest, x.size(-1))

    def refuse_slips(self) -> None:
        """Raises WrongError if it has been called in training mode or with gradients."""
        refuse(self.trained, "Your function measures in training mode, where dropout is on: call model.eval() first.")
        refuse(self.gradients, "Your forward passes keep what gradients would need: run them in torch.no_grad().")


class Untrained(Watched):
    """A small GPT with random weights: its losses on TEXT differ from token to token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.gpt = GPT(GPTConfig(block_size=8, vocab_size=10, n_layer=1, n_head=1, n_embd=8))
        for weight in self.gpt.parameters():
            weight.data.normal_()

    def forward(self, x: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        self.note(x)
        return self.gpt(x, targets)

    @torch.no_grad()
    def losses(self, *borders: int, ahead: int = 1) -> list[list[float]]:
        """Nats per token of neighbouring windows of TEXT, a list for each; targets lie `ahead` tokens further."""
        found = []
        for start, end in pairwise(borders):
            logits, _ = self.gpt(TEXT[None, start:end])
            found.append(F.cross_entropy(logits[0], TEXT[start + ahead : end + ahead], reduction="none").tolist())
        return found


class Reciter(Watched):
    """A model that knows BOOK, but says 0 after the tokens in `wrong`, and where it sees fewer than `needs` tokens.

    back: what it says after a 0 that it has written itself, to be right again behind its mistake.
    """

    def __init__(self, *wrong: int, needs: int = 1, back: int = 1) -> None:
        super().__init__()
        self.wrong, self.needs, self.back = torch.tensor(wrong, dtype=torch.int64), needs, back

    def forward(self, x: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        self.note(x)
        known = ~torch.isin(x, self.wrong) & (torch.arange(x.size(-1)) >= self.needs - 1)
        follows = torch.where((x == 0) & (torch.arange(x.size(-1)) > 0), self.back, x + 1)
        logits = 9.0 * F.one_hot(torch.where(known, follows, 0), len(BOOK) + 1)  # (B, T, 21)
        return logits, None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())
