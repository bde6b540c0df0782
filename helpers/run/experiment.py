"""An experiment made ready: its text as tokens, a new model and its trainer, and what a checkpoint says of it."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers.checkpoint import has_checkpoint, load_checkpoint
from helpers.config import Experiment, Profile
from helpers.data import BPETokenizer, Corpus, gpt2_tokenizer, load_corpus
from helpers.distributed import Group
from helpers.model import GPT
from helpers.run.session import Say, Session
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
    tokenizer = gpt2_tokenizer() if experiment.full_vocab else gpt2_tokenizer().restricted_to(text)
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
    """A new model of `n_vocab` tokens, and its trainer on `tokens`; `changes` replace entries of the recipe."""
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
        "rows": study.tokenizer.kept_ids,
    }


def trained(profile: Profile, folder: Path, say: Say, seed: int = 1337) -> tuple[GPT, dict[str, Any]]:
    """The best model of the run in `folder`, and its meta.json. Where there is none, a small model is trained into it.

    It is then the profile's main experiment, as notebook 04 runs it; what else draws random numbers is not disturbed.
    Raises CheckpointError where there is none and the model is large: that takes a GPU, and longer than a cell should.
    """
    best = folder / "best"
    if not (has_checkpoint(best) or profile.main.gpt.large):
        say(f"No trained model in {folder} yet: notebook 04's main run comes first.")
        say(f"{profile.main.recipe.steps} steps, half a minute on two cores in the demo profile.")
        with torch.random.fork_rng(devices=[]):
            corpus = load_corpus(profile.corpus)
            study, window = read(profile.main, corpus), profile.main.recipe.window
            trainer = new_trainer(profile.main, study.tokens, study.tokenizer.n_vocab, seed)
            meta = describe(profile, corpus, study, window, seed)
            aside = folder.with_name(f"{folder.name}.partial")  # a run that is stopped is not taken for a trained model
            session = Session(trainer, study.tokens, aside, meta, profile.target, say)
            session.begin(fresh=True)
            session.run()
            session.report()
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
    return load_checkpoint(best, GPT)
