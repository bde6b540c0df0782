"""An experiment made ready: its text as tokens, a new model and its trainer, and what a checkpoint says of it."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from helpers.config import Experiment, Profile
from helpers.data import BPETokenizer, Corpus, gpt2_tokenizer
from helpers.model import GPT
from helpers.parallel import Group
from helpers.runtime import pick_runtime
from helpers.train import Trainer
from helpers.windows import Windows


@dataclass(frozen=True)
class Study:
    """What an experiment learns by heart."""

    text: str
    tokenizer: BPETokenizer
    tokens: Tensor  # (N,) int64, on the CPU
    excerpt: int | None  # characters of the corpus that were read; None: all


def read(experiment: Experiment, corpus: Corpus) -> Study:
    """The experiment's part of a corpus, in GPT-2's tokens or in those of them that the part uses."""
    text = corpus.text[: experiment.excerpt]
    tokenizer = gpt2_tokenizer() if experiment.all_rows else gpt2_tokenizer().restricted_to(text)
    return Study(text, tokenizer, torch.tensor(tokenizer.encode(text)), experiment.excerpt)


def new_trainer(
    experiment: Experiment,
    tokens: Tensor,
    n_vocab: int,
    seed: int,
    device: str | None = None,
    group: Group | None = None,
    **changes: Any,
) -> Trainer:
    """A new model with `n_vocab` rows, and its trainer on `tokens`; `changes` replace entries of the recipe."""
    experiment = replace(experiment, recipe=replace(experiment.recipe, **changes))  # refuses what does not fit
    recipe = experiment.recipe
    config = replace(experiment.gpt, vocab_size=n_vocab)
    runtime = pick_runtime(config.large, device)
    torch.manual_seed(seed)
    model = GPT(config)
    model.init_weights(recipe.zero_residual)
    model.to(runtime.device)
    windows = Windows(tokens.to(runtime.device), recipe.window, recipe.batch_size, recipe.policy, seed)
    return Trainer(model, windows, recipe, runtime, group)


def describe(
    profile: Profile, corpus: Corpus, study: Study, window: int, seed: int, recipe: str = "own"
) -> dict[str, Any]:
    """What meta.json says besides the model's sizes: enough to read the text again and to generate."""
    return {
        "profile": profile.name,
        "recipe": recipe,
        "window": window,
        "seed": seed,
        "corpus": corpus.name,
        "sha256": corpus.sha256,
        "excerpt": study.excerpt,
        "rows": study.tokenizer.rows,
    }
