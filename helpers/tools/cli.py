"""The command line: `python -m helpers train`, `record`, `demo`, `space` and `data`."""

import argparse
import ast
import errno
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin, get_type_hints

import torch

from helpers.checkpoint import read_meta
from helpers.config import PROFILES, RECIPES, Recipe, pick_profile
from helpers.data import load_corpus
from helpers.distributed import first_to_say, is_main, join, leave
from helpers.errors import LostError, SeriesError, SettingError, StoppedError, require
from helpers.files import ROOT, runs_folder
from helpers.memorization import loss_floor
from helpers.run.experiment import describe, new_trainer, read
from helpers.run.fit import fit_to_machine
from helpers.run.preflight import micro_batch, refuse_hopeless
from helpers.run.report import record_run
from helpers.run.session import Session
from helpers.run.signals import stopped_by_signals
from helpers.runtime import set_up

MACHINES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOTDIR)
OUR_FAULT = "error: that is a mistake in the series, not in what you asked for: please report the lines above"


def train(args: argparse.Namespace) -> None:
    """Train a profile's GPT into a folder: checkpoint/, best/, log.csv; at the end, metrics.json and samples.txt."""
    group = join(args.device)
    say = print if group.main else lambda _: None
    profile = pick_profile(args.profile)
    recipe = profile.recipe(args.recipe)
    recipe = replace(recipe, steps=recipe.steps if args.steps is None else args.steps)
    recipe = replace(recipe, **dict(_entry(text) for text in args.set))
    if args.stop_at_target is not None:
        recipe = replace(recipe, stop_at_target=args.stop_at_target)
    experiment = replace(profile.main, recipe=recipe, excerpt=args.excerpt or profile.main.excerpt)
    threads = set_up(args.seed)
    corpus = load_corpus(args.corpus or profile.corpus)
    study = read(experiment, corpus)
    trainer = new_trainer(experiment, study.tokens, study.tokenizer.n_vocab, args.seed, args.device, group)
    config, floor = trainer.model.config, loss_floor(study.tokens, recipe.window, recipe.policy).mean

    say("\n".join((*trainer.reasons, f"threads: {threads}")))
    parameters = sum(p.numel() for p in trainer.model.parameters())
    say(f"{parameters:,} parameters, {len(study.tokens):,} tokens of {corpus.name}")
    say(f"{recipe.steps} steps, {trainer.windows.steps_per_epoch:.1f} an epoch")
    say(f"floor of {recipe.policy} windows {floor:.4f}")
    if not args.force:
        refuse_hopeless(config, recipe, trainer.runtime, floor, profile.target, args.device)

    trainer.micro_batch = micro_batch(config, recipe, trainer.runtime, group.world)
    meta = describe(profile, corpus, study, recipe.window, args.seed, args.recipe)
    folder = Path(args.out) if args.out else runs_folder(profile.name) / "gpt"
    session = Session(trainer, study.tokens, folder, meta, profile.target, say)
    session.save_seconds, session.save_every, session.budget = args.save_seconds, args.save_every, args.budget
    session.begin(args.resume, args.fresh)
    with stopped_by_signals(partial(setattr, session, "told_to_stop"), alone=group.world == 1):
        for sentence in fit_to_machine(trainer):
            say(sentence)
        session.run()
    if group.main:
        for name, value in session.report().items():
            say(f"{name:32s} {value:.4f}" if isinstance(value, float) else f"{name:32s} {value}")
    leave()


def record(args: argparse.Namespace) -> None:
    """Copy what a finished run says of itself, its weights excepted, to data/runs/NAME."""
    print(record_run(args.run, ROOT / "data/runs" / args.name))


def data(_: argparse.Namespace) -> None:
    """Fetch tiny Shakespeare, or check the copy that is there."""
    corpus = load_corpus("tinyshakespeare")
    print(f"{corpus.source}: {len(corpus.text):,} characters, sha256 as expected")


def demo(args: argparse.Namespace) -> None:
    """Serve a finished run's model on a page: prompts, samples, and which of their words are the book's."""
    from helpers.serve.engine import Served
    from helpers.serve.page import (  # Gradio takes seconds to import, and training needs none of it
        LOOK,
        QUIET,
        build_app,
    )

    run = _run_of(args)
    app = build_app(Served(run, book=_book_of(args, run)))
    how = {**LOOK, **QUIET, "share": args.share, "server_name": args.host, "server_port": args.port}
    try:
        _, local, public = app.launch(**how, prevent_thread_lock=True)
    except OSError as error:  # a port that is taken, an address that is not this machine's
        raise SettingError(f"cannot serve at {args.host}, port {args.port or 'free'} ({error})") from error
    print(f"{public or local} shows {run}; Ctrl-C ends it", flush=True)
    app.block_thread()


def space(args: argparse.Namespace) -> None:
    """Write a folder that serves a finished run's model by itself, its weights in 8 bits: a Hugging Face Space."""
    from helpers.serve.space import write_space

    run = _run_of(args)
    print(write_space(run, _book_of(args, run), args.out))


def _run_of(args: argparse.Namespace) -> Path:
    return Path(args.run) if args.run else runs_folder(args.profile) / "gpt"


def _book_of(args: argparse.Namespace, run: Path) -> str:
    """What the run learnt: the text that its checkpoint names, or --corpus, which must be the same."""
    from helpers.serve.engine import read_book

    meta = read_meta(run / "best")
    return read_book({**meta, "corpus": args.corpus or meta["corpus"]})


def _at_least_one(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return value


def _record_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be letters, digits, dots and dashes, a letter or digit first")
    return text


def _entry(text: str) -> tuple[str, object]:
    """The name and value of a recipe's entry, from NAME=VALUE; SettingError where there is none of that name."""
    name, _, value = text.partition("=")
    known = [f.name for f in fields(Recipe)]
    require(name in known, f"--set {text}: {name!r} is none of {', '.join(known)}")
    try:
        parsed = ast.literal_eval(value.capitalize() if value in ("true", "false", "none") else value)
    except (ValueError, SyntaxError):
        parsed = value
    kinds = get_type_hints(Recipe)[name]
    allowed = (int, float) if kinds is float else get_args(kinds) if isinstance(kinds, UnionType) else (kinds,)
    if type(parsed) not in [get_origin(kind) or kind for kind in allowed]:
        raise SettingError(f"--set {text}: {name} is of type {getattr(kinds, '__name__', kinds)}")
    return name, parsed


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m helpers", description=__doc__)
    commands = top.add_subparsers(required=True)

    p = commands.add_parser("train", help=train.__doc__)
    p.add_argument("--profile", default="demo", choices=PROFILES)
    p.add_argument("--recipe", default="own", choices=RECIPES)
    p.add_argument("--corpus", help="sample, tinyshakespeare or a text file; the profile's unless told")
    p.add_argument("--excerpt", type=_at_least_one, metavar="CHARACTERS", help="only the first so many of the corpus")
    p.add_argument("--out", help="folder of the run; runs/PROFILE/gpt unless told")
    p.add_argument("--steps", type=_at_least_one, help="optimizer steps, schedule included; the recipe's unless told")
    p.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="other entries of the recipe: lr=1e-3")
    p.add_argument("--seed", type=int, default=1337)
    p.add_argument("--device", help="cpu, cuda or mps; the fastest unless told")
    p.add_argument("--save-seconds", type=float, default=60.0, help="most seconds between checkpoints")
    p.add_argument("--save-every", type=_at_least_one, metavar="STEPS", help="steps between checkpoints, instead")
    p.add_argument("--budget", type=float, metavar="MINUTES", help="stop after 20 steps if the run would take longer")
    p.add_argument("--force", action="store_true", help="try what the numbers say cannot work")
    p.add_argument(
        "--stop-at-target",
        action=argparse.BooleanOptionalAction,
        help="end at the first whole-corpus loss below the target; the recipe's way unless told",
    )
    start = p.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    start.add_argument("--fresh", action="store_true", help="replace the run in --out")
    p.set_defaults(command=train)

    p = commands.add_parser("record", help=record.__doc__)
    p.add_argument("run", type=Path, help="folder of the run")
    p.add_argument("name", type=_record_name, help="of the record: letters, digits, dots and dashes")
    p.set_defaults(command=record)

    _serving_commands(commands)

    p = commands.add_parser("data", help=data.__doc__)
    p.set_defaults(command=data)
    return top


def _serving_commands(commands: argparse._SubParsersAction) -> None:
    for command in (demo, space):
        p = commands.add_parser(command.__name__, help=command.__doc__)
        p.add_argument("--profile", default="demo", choices=PROFILES)
        p.add_argument("--run", help="folder of the run; runs/PROFILE/gpt unless told")
        p.add_argument("--corpus", help="where the text is that it learnt; found by its name unless told")
        if command is space:
            p.add_argument("--out", default="build/space", help="folder to write; %(default)s unless told")
        else:
            p.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 lets others in")
            p.add_argument("--port", type=int, help="the first free one from 7860 unless told")
            p.add_argument("--share", action="store_true", help="through a public address of gradio.live, for a while")
        p.set_defaults(command=command)


def main(argv: Sequence[str] | None = None) -> int | str:
    """Run the command (sys.argv's unless told); what to tell the shell: 0, an error to print, 143 or 130 if stopped.

    Only a SeriesError is told by its message alone: what else goes wrong is our mistake, and keeps its traceback.
    """
    args = parser().parse_args(argv)
    try:
        args.command(args)
    except StoppedError as stopped:
        if is_main():
            print(stopped)
        return 128 + stopped.told_by
    except KeyboardInterrupt:
        print("stopped by Ctrl-C")
        return 128 + signal.SIGINT
    except LostError as lost:
        return f"error: {lost}" if first_to_say("lost") else 1
    except torch.OutOfMemoryError as error:
        return (
            f"error: out of GPU memory ({error}): close what else uses the card, or --set accumulation=N splits a step"
        )
    except SeriesError as error:
        return f"error: {error}" if first_to_say("error") else 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINES:  # a full disk, a folder that is not ours
            return f"error: {error}" if first_to_say("error") else 1
        traceback.print_exc()
        return OUR_FAULT
    return 0


if __name__ == "__main__":
    sys.exit(main())
