"""What each command of `python -m helpers` can be told, and the experiment that `train` is told to make."""

import argparse
import ast
import math
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin, get_type_hints

from helpers.base.errors import SettingError, require
from helpers.config import PROFILES, RECIPES, Experiment, Profile, Recipe, pick_profile


def add_arguments(p: argparse.ArgumentParser, command: str) -> None:
    """What the command of that name can be told."""
    if command == "train":
        _add_training(p)
    elif command == "diagnose":
        p.add_argument("log", type=Path, help="log.csv, losses line by line, nanoGPT's console or transformers' log")
        p.add_argument("--vocab-size", type=_at_least_one, metavar="N", help="entries of the tokenizer's vocabulary")
        p.add_argument("--floor", type=_positive, metavar="NATS", help="the lowest loss that is possible, per token")
    elif command == "record":
        p.add_argument("run", type=Path, help="folder of the run")
        p.add_argument("name", type=_record_name, help="of the record: letters, digits, dots and dashes")
    elif command in ("demo", "space"):
        _add_serving(p, command)


def _add_training(p: argparse.ArgumentParser) -> None:
    p.add_argument("--profile", default="demo", choices=PROFILES)
    p.add_argument("--recipe", default="own", choices=RECIPES)
    p.add_argument("--corpus", help="sample, tinyshakespeare or a text file; the profile's unless told")
    p.add_argument("--excerpt", type=_at_least_one, metavar="CHARACTERS", help="only the first so many of the corpus")
    p.add_argument("--out", help="folder of the run; runs/PROFILE/gpt unless told")
    p.add_argument("--steps", type=_at_least_one, help="optimizer steps, schedule included; the recipe's unless told")
    p.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="other entries of the recipe: lr=1e-3")
    p.add_argument("--seed", type=int, default=1337)
    p.add_argument("--device", help="cpu, cuda or mps; the fastest unless told")
    p.add_argument("--save-seconds", type=_not_negative, default=60.0, help="most seconds between checkpoints")
    p.add_argument("--save-every", type=_at_least_one, metavar="STEPS", help="steps between checkpoints, instead")
    p.add_argument("--budget", type=_positive, metavar="MINUTES", help="stop after 20 steps if it would take longer")
    p.add_argument("--force", action="store_true", help="try what the numbers say cannot work")
    p.add_argument(
        "--stop-at-target",
        action=argparse.BooleanOptionalAction,
        help="end at the first whole-corpus loss below the target; the recipe's way unless told",
    )
    start = p.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on where the run in --out stopped")
    start.add_argument("--fresh", action="store_true", help="replace the run in --out")


def _add_serving(p: argparse.ArgumentParser, command: str) -> None:
    p.add_argument("--profile", default="demo", choices=PROFILES)
    p.add_argument("--run", help="folder of the run; runs/PROFILE/gpt unless told")
    p.add_argument("--corpus", help="where the text is that it learnt; found by its name unless told")
    if command == "space":
        p.add_argument("--out", default="build/space", help="folder to write; %(default)s unless told")
        return
    p.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 lets others in")
    p.add_argument("--port", type=_port, help="the first free one from 7860 unless told")
    p.add_argument("--share", action="store_true", help="through a public address of gradio.live, for a while")


def _number(kind: type, holds: Callable[[float], bool], says: str) -> Callable[[str], float]:
    """A parser of an argument that is a number: one that does not hold is refused with what the message says of it."""

    def parse(text: str) -> float:
        if not holds(value := kind(text)):
            raise argparse.ArgumentTypeError(f"{text} {says}")
        return value

    parse.__name__ = kind.__name__  # which argparse names where the text is no number
    return parse


_at_least_one = _number(int, lambda value: value >= 1, "must be at least 1")
_positive = _number(float, lambda value: 0 < value < math.inf, "must be above 0")
_not_negative = _number(float, lambda value: 0 <= value < math.inf, "must be 0 or above")
_port = _number(int, lambda value: 0 < value < 2**16, "is no port: 1 to 65535")


def _record_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be letters, digits, dots and dashes, a letter or digit first")
    return text


def select(args: argparse.Namespace) -> tuple[Profile, Experiment]:
    """The profile, and its main experiment with what `train` was told to change. SettingError where that cannot be."""
    profile = pick_profile(args.profile)
    changes = {} if args.steps is None else {"steps": args.steps}
    changes |= dict(_entry(text) for text in args.set)
    changes |= {} if args.stop_at_target is None else {"stop_at_target": args.stop_at_target}
    recipe = replace(profile.recipe(args.recipe), **changes)
    return profile, replace(profile.main, recipe=recipe, excerpt=args.excerpt or profile.main.excerpt)


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
