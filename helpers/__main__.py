"""The command line: `python -m helpers train` and `python -m helpers data`."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from helpers.checkpoint import CheckpointError, clear_checkpoint, has_checkpoint, read_meta
from helpers.config import PROFILES, RECIPES, pick_profile
from helpers.data import DataError, load_corpus
from helpers.experiment import describe, new_trainer, read
from helpers.memorization import loss_floor, measure, whole_corpus_loss
from helpers.runs import runs_folder, write_json
from helpers.runtime import set_up
from helpers.train import RunLog, Trainer, save_checkpoint, stop_step

CLEAR = (CheckpointError, DataError, ValueError, FloatingPointError, OSError)  # their message is enough


def train(args: argparse.Namespace) -> None:
    """Train a profile's GPT into a folder: checkpoint/, log.csv and, at the end, metrics.json."""
    profile = pick_profile(args.profile)
    recipe = profile.recipe(args.recipe)
    recipe = replace(recipe, steps=recipe.steps if args.steps is None else args.steps)
    threads = set_up(args.seed)
    corpus = load_corpus(args.corpus or profile.corpus)
    study = read(profile.main, corpus)
    experiment = replace(profile.main, recipe=recipe)
    trainer = new_trainer(experiment, study.tokens, study.tokenizer.n_vocab, args.seed, args.device)
    floor = loss_floor(study.tokens, recipe.window, recipe.policy).mean

    print(*trainer.runtime.reasons, f"threads: {threads}", sep="\n")
    parameters = sum(p.numel() for p in trainer.model.parameters())
    print(f"{parameters:,} parameters, {len(study.tokens):,} tokens of {corpus.name}")
    epoch = trainer.windows.steps_per_epoch
    print(f"{recipe.steps} steps, {epoch:.1f} an epoch; floor of {recipe.policy} windows {floor:.4f}")
    folder = Path(args.out) if args.out else runs_folder(profile.name) / "gpt"
    meta = describe(profile, corpus, study, recipe.window, args.seed, args.recipe)
    log, measured = _begin(trainer, folder, meta, args)
    _loop(trainer, study.tokens, folder, log, measured, meta, args.save_every)
    _report(trainer, study.tokens, folder, log, measured, profile.target)


def _begin(trainer: Trainer, folder: Path, meta: dict, args: argparse.Namespace) -> tuple[RunLog, dict[int, float]]:
    """A new log, or that of the run in `folder`, with the whole-corpus losses measured so far, by step."""
    checkpoint, log_file = folder / "checkpoint", folder / "log.csv"
    if args.fresh:
        clear_checkpoint(checkpoint)
    if not has_checkpoint(checkpoint):
        if args.resume:
            print(f"nothing to resume in {folder}: starting at step 1")
        return RunLog(log_file), {}
    if not args.resume:
        raise CheckpointError(f"{folder} already holds a run: go on with --resume, or start over with --fresh")
    saved = read_meta(checkpoint)
    other = [f"{name}={saved.get(name)}" for name in ("profile", "sha256", "excerpt") if saved.get(name) != meta[name]]
    if other:
        raise CheckpointError(f"{folder} is of another run ({', '.join(other)}): choose another --out")
    for note in trainer.resume(checkpoint):
        print(f"note: {note}")
    print(f"resumed after step {trainer.steps_done}")
    return RunLog.resume(log_file, trainer.steps_done), dict(saved["whole_corpus"])


def _loop(
    trainer: Trainer, tokens: Tensor, folder: Path, log: RunLog, measured: dict[int, float], meta: dict, save_every: int
) -> None:
    """The run itself: every step is logged, every tenth of the run measured, every `save_every` steps saved."""
    last, window = trainer.recipe.steps, trainer.recipe.window
    with tqdm(trainer.steps(), initial=trainer.steps_done, total=last, unit="step", disable=None) as bar:
        for step in bar:
            log.append(step)
            if step.number % max(1, last // 10) == 0 or step.number == last:
                with trainer.runtime.autocast():
                    measured[step.number] = whole_corpus_loss(trainer.model, tokens, window)
                bar.write(f"step {step.number:5d}  batch {step.loss:.4f}  whole corpus {measured[step.number]:.4f}")
            if step.number % save_every == 0 or step.number == last:
                now = {**meta, "step": step.number, "whole_corpus": list(measured.items())}
                save_checkpoint(folder / "checkpoint", trainer.model, now, trainer.training_state())


def _report(
    trainer: Trainer, tokens: Tensor, folder: Path, log: RunLog, measured: dict[int, float], target: float
) -> None:
    """All measures of the finished model, printed and written to metrics.json."""
    with trainer.runtime.autocast():
        metrics = measure(trainer.model, tokens, trainer.recipe.window)
    rules = {"single batch": None, "mean of 100": None, "whole corpus": measured}
    metrics |= {f"first below {target}: {rule}": stop_step(log, rule, target, found) for rule, found in rules.items()}
    write_json(folder / "metrics.json", {**metrics, "steps": trainer.steps_done})
    for name, value in metrics.items():
        print(f"{name:32s} {value:.4f}" if isinstance(value, float) else f"{name:32s} {value}")


def data(_: argparse.Namespace) -> None:
    """Fetch tiny Shakespeare, or check the copy that is there."""
    corpus = load_corpus("tinyshakespeare")
    print(f"{corpus.source}: {len(corpus.text):,} characters, sha256 as expected")


def _at_least_one(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return value


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m helpers", description=__doc__)
    commands = top.add_subparsers(required=True)

    p = commands.add_parser("train", help=train.__doc__)
    p.add_argument("--profile", default="demo", choices=PROFILES)
    p.add_argument("--recipe", default="own", choices=RECIPES)
    p.add_argument("--corpus", help="sample, tinyshakespeare or a text file; the profile's unless told")
    p.add_argument("--out", help="folder of the run; runs/PROFILE/gpt unless told")
    p.add_argument("--steps", type=_at_least_one, help="optimizer steps, schedule included; the recipe's unless told")
    p.add_argument("--seed", type=int, default=1337)
    p.add_argument("--device", help="cpu, cuda or mps; the fastest unless told")
    p.add_argument("--save-every", type=_at_least_one, default=50, metavar="STEPS", help="steps between checkpoints")
    start = p.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    start.add_argument("--fresh", action="store_true", help="replace the run in --out")
    p.set_defaults(command=train)

    p = commands.add_parser("data", help=data.__doc__)
    p.set_defaults(command=data)
    return top


if __name__ == "__main__":
    arguments = parser().parse_args()
    try:
        arguments.command(arguments)
    except CLEAR as error:
        sys.exit(f"error: {error}")
