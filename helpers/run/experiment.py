"""An experiment made ready: its text as tokens, a new model and its trainer, and what a checkpoint says of it."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers.base.group import Group
from helpers.checkpoint import CheckpointError, has_checkpoint, load_checkpoint
from helpers.config import Experiment, Profile
from helpers.data import BPETokenizer, Corpus, gpt2_tokenizer, load_corpus
from helpers.model import GPT
from helpers.run.folder import Say
from helpers.run.preflight import first_micro_batch
from helpers.run.session import Session
from helpers.runtime import Runtime, pick_runtime
from helpers.train import Trainer
from helpers.windows import Windows


@dataclass(frozen=True)
class TrainingData:
    """What an experiment learns by heart."""

    corpus: Corpus  # what it is part of
    excerpt: int | None  # characters of the corpus that are learnt; None: all
    text: str  # those characters
    tokenizer: BPETokenizer
    tokens: Tensor  # (N,) int64, on the CPU


def tokenize(experiment: Experiment, corpus: Corpus) -> TrainingData:
    """The experiment's part of a corpus, in GPT-2's tokens or in those of them that the part uses."""
    text = corpus.text[: experiment.excerpt]
    tokenizer = gpt2_tokenizer() if experiment.full_vocab else gpt2_tokenizer().restricted_to(text)
    return TrainingData(corpus, experiment.excerpt, text, tokenizer, torch.tensor(tokenizer.encode(text)))


def new_trainer(
    experiment: Experiment,
    data: TrainingData,
    seed: int,
    device: str | Runtime | None = None,
    group: Group | None = None,
    tokens: Tensor | None = None,
    **changes: Any,
) -> Trainer:
    """A new model with the data's vocabulary, and its trainer; `changes` replace entries of the recipe.

    It trains on all tokens of the data, or on `tokens`, (N,) int64; on a device, whose dtype is picked, or as a runtime
    says. SettingError where a change does not fit.
    """
    experiment = replace(experiment, recipe=replace(experiment.recipe, **changes))
    recipe, group = experiment.recipe, group or Group()
    config = replace(experiment.gpt, vocab_size=data.tokenizer.n_vocab)
    runtime = device if isinstance(device, Runtime) else pick_runtime(config.large, device)
    torch.manual_seed(seed)
    model = GPT(config)
    model.init_weights(recipe.zero_residual)
    model.to(runtime.device)
    tokens = (data.tokens if tokens is None else tokens).to(runtime.device)
    windows = Windows(tokens, recipe.window, recipe.batch_size, recipe.policy, seed, recipe.halved_steps)
    trainer = Trainer(model, windows, recipe, runtime, group)
    trainer.micro_batch = first_micro_batch(config, recipe, runtime, group.world)
    return trainer


def describe(profile: Profile, data: TrainingData, trainer: Trainer, recipe: str = "own") -> dict[str, Any]:
    """What meta.json says besides the model's sizes: enough to read the text again and to generate."""
    return {
        "profile": profile.name,
        "recipe": recipe,
        "window": trainer.recipe.window,
        "seed": trainer.windows.seed,
        "corpus": data.corpus.name,
        "sha256": data.corpus.sha256,
        "excerpt": data.excerpt,
        "rows": data.tokenizer.kept_ids,
    }


def trained(profile: Profile, folder: Path, say: Say, seed: int = 1337) -> tuple[GPT, dict[str, Any]]:
    """The best model of the run in `folder`, and its meta.json. Where there is none, a small model is trained into it.

    It is then the profile's main experiment, as notebook 04 runs it; what else draws random numbers is not disturbed.
    Raises CheckpointError where there is none and the model is large: that takes a GPU, and longer than a cell should;
    and where a run has not come as far as its first measurement: it is not thrown away.
    """
    best = folder / "best"
    if not has_checkpoint(best) and has_checkpoint(folder / "checkpoint"):
        raise CheckpointError(
            f"the run in {folder} has not come as far as a model to use: go on with `python -m helpers train "
            f"--resume --out {folder}` and what else it was begun with, or delete that folder"
        )
    if not (has_checkpoint(best) or profile.main.gpt.large):
        say(f"No trained model in {folder} yet: notebook 04's main run comes first.")
        say(f"{profile.main.recipe.steps} steps, half a minute on two cores in the demo profile.")
        with torch.random.fork_rng(devices=[]):
            data = tokenize(profile.main, load_corpus(profile.corpus))
            trainer = new_trainer(profile.main, data, seed)
            aside = folder.with_name(f"{folder.name}.partial")  # a run that is stopped is not taken for a trained model
            meta = describe(profile, data, trainer)
            session = Session(trainer, data.tokens, aside, meta, profile.target, say)
            session.begin(fresh=True)
            session.run()
            session.report()
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
    return load_checkpoint(best, GPT)
