"""The command line: `python -m helpers train`, `diagnose`, `record`, `demo`, `space` and `data`."""

import argparse
import errno
import signal
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from helpers.base.errors import LostError, SeriesError, SettingError, StoppedError
from helpers.base.files import ROOT, runs_folder
from helpers.checkpoint import read_meta
from helpers.data import load_corpus
from helpers.memorization import loss_floor
from helpers.run.cost import n_params
from helpers.run.diagnose import diagnose as diagnosis
from helpers.run.experiment import TrainingData, describe, new_trainer, tokenize
from helpers.run.fit import fit_to_machine
from helpers.run.preflight import refuse_hopeless
from helpers.run.processes import first_to_say, is_main, join, leave, of_a_lost_process
from helpers.run.read_log import beside, read_log
from helpers.run.report import record_run
from helpers.run.session import Session
from helpers.run.signals import stopped_by_signals
from helpers.runtime import set_up
from helpers.tools.arguments import add_arguments, select
from helpers.train import Trainer

MACHINES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOTDIR)
OUR_FAULT = "error: that is a mistake in the series, not in what you asked for: please report the lines above"


def train(args: argparse.Namespace) -> None:
    """Train a profile's GPT into a folder: checkpoint/, best/, log.csv; at the end, metrics.json and samples.txt."""
    # choose: processes, recipe, threads
    group = join(args.device)
    say = print if group.main else lambda _: None
    profile, experiment = select(args)
    threads = set_up(args.seed)
    # read: corpus, tokens
    data = tokenize(experiment, load_corpus(args.corpus or profile.corpus))
    # build: model, runtime, windows, trainer
    trainer = new_trainer(experiment, data, args.seed, args.device, group)
    meta = describe(profile, data, trainer, args.recipe)
    # check: can it work?
    floor = loss_floor(data.tokens, trainer.recipe.window, trainer.recipe.policy).mean
    say(_plan(trainer, data, floor, threads))
    if not args.force:
        refuse_hopeless(trainer.model.config, trainer.recipe, trainer.runtime, floor, profile.target, args.device)
    # run
    saving = {"save_seconds": args.save_seconds, "save_every": args.save_every}
    folder = _folder(args.out, profile.name)
    session = Session(trainer, data.tokens, folder, meta, profile.target, say, **saving, budget=args.budget)
    session.begin(args.resume, args.fresh)
    with stopped_by_signals(partial(setattr, session, "told_to_stop"), alone=group.world == 1):
        for sentence in fit_to_machine(trainer):
            say(sentence)
        session.run()
    # report
    if group.main:
        for name, value in session.report().items():
            say(f"{name:32s} {value:.4f}" if isinstance(value, float) else f"{name:32s} {value}")
    leave()


def _plan(trainer: Trainer, data: TrainingData, floor: float, threads: int) -> str:
    """What is about to run, a line for each part."""
    recipe = trainer.recipe
    sizes = f"{n_params(trainer.model.config):,} parameters, {len(data.tokens):,} tokens of {data.corpus.name}"
    length = f"{recipe.steps} steps, {trainer.windows.steps_per_epoch:.1f} per epoch"
    floor_of = f"floor of {recipe.policy} windows {floor:.4f}"
    return "\n".join((*trainer.reasons, f"threads: {threads}", sizes, length, floor_of))


def diagnose(args: argparse.Namespace) -> None:
    """Say whether a training log looks healthy, and if not, what may be wrong: the reasons, and what to try."""
    vocab_size, floor, measured = beside(args.log)
    log = read_log(args.log)
    print(diagnosis(log, args.vocab_size or vocab_size, args.floor or floor, measured))


def record(args: argparse.Namespace) -> None:
    """Copy what a finished run says of itself, its weights excepted, to data/runs/NAME."""
    print(record_run(args.run, ROOT / "data/runs" / args.name))


def data(_: argparse.Namespace) -> None:
    """Fetch tiny Shakespeare, or check the copy that is there."""
    corpus = load_corpus("tinyshakespeare")
    print(f"{corpus.source}: {len(corpus.text):,} characters, sha256 as expected")


def demo(args: argparse.Namespace) -> None:
    """Serve a finished run's model on a page: prompts, samples, and which of their words are the book's."""
    from helpers.serve.engine import Engine
    from helpers.serve.page import (  # Gradio takes seconds to import, and training needs none of it
        LOOK,
        QUIET,
        build_app,
    )

    run = _folder(args.run, args.profile)
    app = build_app(Engine(run, book=_book_of(args, run)))
    options = {**LOOK, **QUIET, "share": args.share, "server_name": args.host, "server_port": args.port}
    try:
        _, local, public = app.launch(**options, prevent_thread_lock=True)
    except OSError as error:  # a port that is taken, an address that is not this machine's
        raise SettingError(f"cannot serve at {args.host}, port {args.port or 'free'} ({error})") from error
    print(f"{public or local} shows {run}; Ctrl-C ends it", flush=True)
    app.block_thread()


def space(args: argparse.Namespace) -> None:
    """Write a folder that serves a finished run's model by itself, its weights in 8 bits: a Hugging Face Space."""
    from helpers.serve.space import write_space

    run = _folder(args.run, args.profile)
    print(write_space(run, _book_of(args, run), args.out))


def _folder(told: str | None, profile: str) -> Path:
    """The folder of a run: what was told, or the profile's main one."""
    return Path(told) if told else runs_folder(profile) / "gpt"


def _book_of(args: argparse.Namespace, run: Path) -> str:
    """What the run learnt: the text that its checkpoint names, or --corpus, which must be the same."""
    from helpers.serve.engine import read_book

    meta = read_meta(run / "best", needs=("corpus", "sha256", "excerpt"))
    return read_book({**meta, "corpus": args.corpus or meta["corpus"]})


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m helpers", description=__doc__)
    commands = top.add_subparsers(required=True)
    for command in (train, diagnose, record, demo, space, data):
        p = commands.add_parser(command.__name__, help=command.__doc__)
        p.set_defaults(command=command)
        add_arguments(p, command.__name__)
    return top


def main(argv: Sequence[str] | None = None) -> int | str:
    """Run the command (sys.argv's unless told); what to tell the shell: 0, an error to print, 143 or 130 if stopped.

    A SeriesError is told by its message alone, and so is what the machine refuses: memory, a disk, a folder, another
    process that is gone. What else goes wrong is our mistake, and keeps its traceback.
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
        if isinstance(error, RuntimeError) and of_a_lost_process(error):  # before the first step
            return "error: another process of this run is gone, and said why" if first_to_say("lost") else 1
        traceback.print_exc()
        return OUR_FAULT
    return 0


if __name__ == "__main__":
    sys.exit(main())
