"""The command line: `python -m helpers train` and `python -m helpers data`."""

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from helpers.checkpoint import CheckpointError, read_meta
from helpers.config import PROFILES, RECIPES, pick_profile
from helpers.data import DataError, gpt2_tokenizer, load_corpus
from helpers.memorization import corpus_loss, loss_floor, measure
from helpers.model import GPT
from helpers.runs import runs_folder, write_json
from helpers.runtime import pick_runtime, set_up
from helpers.train import RunLog, Trainer, save_checkpoint, stop_step
from helpers.windows import Windows

CLEAR = (CheckpointError, DataError, ValueError, FloatingPointError)  # their message is enough


def train(args: argparse.Namespace) -> None:
    """Train a profile's GPT into a folder: checkpoint/, log.csv and, at the end, metrics.json."""
    profile = pick_profile(args.profile)
    task, recipe = profile.main, profile.recipe(args.recipe)
    recipe = replace(recipe, steps=recipe.steps if args.steps is None else args.steps)
    folder = Path(args.out) if args.out else runs_folder(profile.name) / "gpt"
    _make_way(folder, args)
    threads = set_up(args.seed)

    corpus = load_corpus(args.corpus or profile.corpus)
    text = corpus.text[: task.excerpt]
    tokenizer = gpt2_tokenizer() if task.all_rows else gpt2_tokenizer().restricted_to(text)
    tokens = torch.tensor(tokenizer.encode(text))
    floor = loss_floor(tokens, recipe.window, recipe.policy).mean

    config = replace(task.gpt, vocab_size=tokenizer.n_vocab)
    runtime = pick_runtime(large=config.n_embd >= 512, device=args.device)
    model = GPT(config)
    model.init_weights(recipe.zero_residual)
    model.to(runtime.device)
    windows = Windows(tokens.to(runtime.device), recipe.window, recipe.batch_size, recipe.policy, args.seed)
    trainer = Trainer(model, windows, recipe, runtime)

    print(*runtime.reasons, f"threads: {threads}", sep="\n")
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokens):,} tokens of {corpus.name}")
    print(f"{recipe.steps} steps, {windows.steps_per_epoch:.1f} an epoch; floor of {recipe.policy} windows {floor:.4f}")
    meta = {"profile": profile.name, "recipe": args.recipe, "window": recipe.window, "seed": args.seed}
    meta |= {"corpus": corpus.name, "sha256": corpus.sha256, "excerpt": task.excerpt, "rows": tokenizer.rows}
    measured = _loop(trainer, tokens, folder, meta, args)
    _report(trainer, tokens, folder, profile.target, measured)


def _make_way(folder: Path, args: argparse.Namespace) -> None:
    if args.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    if (folder / "checkpoint").exists() and not args.resume:
        raise CheckpointError(f"{folder} already holds a run: go on with --resume, or start over with --fresh")


def _loop(trainer: Trainer, tokens: Tensor, folder: Path, meta: dict, args: argparse.Namespace) -> dict[int, float]:
    """The run itself; returns the whole-corpus losses that were measured, by step."""
    checkpoint, log_file = folder / "checkpoint", folder / "log.csv"
    if args.resume and checkpoint.exists():
        saved = read_meta(checkpoint)
        names = ("profile", "sha256", "excerpt")
        other = [f"{name}={saved.get(name)}" for name in names if saved.get(name) != meta[name]]
        if other:
            raise CheckpointError(f"{folder} is of another run ({', '.join(other)}): choose another --out")
        trainer.resume(checkpoint)
        log, measured = RunLog.resume(log_file, trainer.steps_done), dict(saved["whole_corpus"])
        print(f"resumed after step {trainer.steps_done}")
    else:
        log, measured = RunLog(log_file), {}
    recipe = trainer.recipe
    with tqdm(trainer.steps(), initial=trainer.steps_done, total=recipe.steps, unit="step", disable=None) as bar:
        for step in bar:
            log.append(step)
            if step.number % args.save_every and step.number != recipe.steps:
                continue
            with trainer.runtime.autocast():
                measured[step.number] = corpus_loss(trainer.model, tokens, recipe.window).mean
            now = {**meta, "step": step.number, "whole_corpus": list(measured.items())}
            save_checkpoint(checkpoint, trainer.model, now, trainer.training_state())
            bar.write(f"step {step.number:5d}  batch {step.loss:.4f}  whole corpus {measured[step.number]:.4f}")
    return measured


def _report(trainer: Trainer, tokens: Tensor, folder: Path, target: float, measured: dict[int, float]) -> None:
    with trainer.runtime.autocast():
        metrics = measure(trainer.model, tokens, trainer.recipe.window)
    log = RunLog.resume(folder / "log.csv", trainer.steps_done)
    rules = {"single batch": None, "mean of 100": None, "whole corpus": measured}
    metrics |= {f"first below {target}: {rule}": stop_step(log, rule, target, found) for rule, found in rules.items()}
    write_json(folder / "metrics.json", {**metrics, "steps": trainer.steps_done})
    for name, value in metrics.items():
        print(f"{name:32s} {value:.4f}" if isinstance(value, float) else f"{name:32s} {value}")


def data(_: argparse.Namespace) -> None:
    """Fetch tiny Shakespeare, or check the copy that is there."""
    corpus = load_corpus("tinyshakespeare")
    print(f"{corpus.source}: {len(corpus.text):,} characters, sha256 as expected")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m helpers", description=__doc__)
    commands = top.add_subparsers(required=True)

    p = commands.add_parser("train", help=train.__doc__)
    p.add_argument("--profile", default="demo", choices=PROFILES)
    p.add_argument("--recipe", default="own", choices=RECIPES)
    p.add_argument("--corpus", help="sample, tinyshakespeare or a text file; the profile's unless told")
    p.add_argument("--out", help="folder of the run; runs/PROFILE/gpt unless told")
    p.add_argument("--steps", type=int, help="optimizer steps, schedule included; the recipe's unless told")
    p.add_argument("--seed", type=int, default=1337)
    p.add_argument("--device", help="cpu, cuda or mps; the fastest unless told")
    p.add_argument("--save-every", type=int, default=50, metavar="STEPS", help="steps between checkpoints")
    p.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    p.add_argument("--fresh", action="store_true", help="delete the run in --out first")
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
