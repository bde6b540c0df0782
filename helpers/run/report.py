"""What a run leaves for readers who cannot repeat it: the machine it ran on, samples, and a small copy to keep."""

import platform
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from helpers.base.files import ROOT, read_json, writing
from helpers.base.machine import card
from helpers.checkpoint import CheckpointError
from helpers.data import BPETokenizer
from helpers.generate import generate
from helpers.model import GPT
from helpers.run.log import RunLog, read_log, stop_step, tokens_seen
from helpers.train import Trainer

FILES = ("run.json", "log.csv", "metrics.json", "samples.txt")
PROMPTS = ("ROMEO:", "First Citizen:\n", "To be, or not to be,", "All the world's a stage,")


def describe_run(trainer: Trainer, meta: dict[str, Any]) -> dict[str, Any]:
    """What run.json says: the checkpoint's own words, the sizes, the recipe in full, and the machine."""
    rows = {"rows": "all" if meta["rows"] is None else len(meta["rows"])}
    recipe = {"name": meta["recipe"], **asdict(trainer.recipe)}
    sizes = {"config": asdict(trainer.model.config)}
    return {**meta, **rows, **sizes, "recipe": recipe, "environment": environment(trainer)}


def environment(trainer: Trainer) -> dict[str, Any]:
    """The machine and the versions, in words that mean something elsewhere."""
    runtime = trainer.runtime
    cuda = runtime.device.type == "cuda"
    return {
        "hardware": f"{trainer.group.world}x {card()}" if cuda else _processor(),
        "device": runtime.device.type,
        "dtype": str(runtime.dtype).removeprefix("torch."),
        "compiled": trainer.compiled,
        "micro_batch": trainer.micro_batch,
        "threads": torch.get_num_threads(),
        "processes": trainer.group.world,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def _processor() -> str:
    """The processor's name, and how many threads torch uses of it."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), flags=re.M) if cpuinfo.is_file() else None
    name = found[1] if found else platform.processor() or platform.machine()
    return f"{torch.get_num_threads()} threads of {name}"


def describe_course(log: RunLog, n_tokens: int, target: float, measured: dict[int, float]) -> dict[str, Any]:
    """What metrics.json says of the way there: the step at which each stop rule is met, and what the steps took.

    n_tokens: of the whole text; target: in nats per token; measured: step -> whole-corpus loss.
    """
    rules = {"single batch": None, "mean of 100": None, "whole corpus": measured}
    first = {f"first below {target}: {rule}": stop_step(log, rule, target, found) for rule, found in rules.items()}
    tokens = tokens_seen(log.rows)[-1]
    took = {"steps": len(log.rows), "seconds": sum(log.column("seconds")), "tokens_seen": tokens}
    return first | took | {"epochs": tokens / (n_tokens - 1)}


def write_samples(path: Path, model: GPT, tokenizer: BPETokenizer, text: str, window: int) -> None:
    """A file of text by the model: how the corpus begins, greedily, and each of PROMPTS, greedily and sampled."""
    device = next(model.parameters()).device
    first_line = text.split("\n", 1)[0] + "\n"
    parts = []
    for prompt in (first_line, *PROMPTS):
        ids = torch.tensor([tokenizer.encode(prompt)], device=device)[:, -window:]
        for temperature in (0.0, 0.8):
            g = torch.Generator().manual_seed(0)
            new = generate(model, ids, 100, temperature=temperature, top_k=50, generator=g, window=window)
            completion = tokenizer.decode(new[0].tolist())
            parts.append(f"=== temperature {temperature:g}, prompt {prompt!r}\n{completion}\n")
    with writing(path):
        path.write_text("\n".join(parts), encoding="utf-8")


def record_run(run: Path, to: Path) -> str:
    """Copy a finished run's words and numbers to `to`; what was written. CheckpointError if it is not finished."""
    if absent := [name for name in FILES if not (run / name).is_file()]:
        raise CheckpointError(f"{run} is no finished run: it has no {', '.join(absent)}")
    with writing(to):
        to.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(run / name, to / name)
    metrics = read_json(to / "metrics.json")
    return f"{to}: {metrics['steps']} steps, loss on the grid {metrics['loss_grid']:.4f}"


def recorded(pattern: str = "*") -> dict[str, dict[str, Any]]:
    """The recorded runs whose name fits: by name, what run.json and metrics.json say, and the rows of log.csv."""
    folders = sorted(p for p in (ROOT / "data/runs").glob(pattern) if (p / "run.json").is_file())
    return {
        f.name: {
            "run": read_json(f / "run.json"),
            "metrics": read_json(f / "metrics.json"),
            "log": read_log(f / "log.csv"),
        }
        for f in folders
    }


def verdict(checks: dict[str, bool], reached: Iterable[str] = (), measured: bool = True) -> str:
    """A line per check, to print. Raises RuntimeError, naming them, if any failed (an `assert` would vanish under -O).

    reached: those that depend on what training reached; unless `measured`, no run has shown that they hold, and one
    that fails is said and not raised. ValueError for a name that is no check.
    """
    if unknown := set(reached) - set(checks):
        raise ValueError(f"no such check: {'; '.join(sorted(unknown))}")
    hoped = () if measured else set(reached)
    failed = [name for name, passed in checks.items() if not passed]
    if broken := [name for name in failed if name not in hoped]:
        raise RuntimeError(f"not as promised: {'; '.join(broken)}")
    note = " (a hope: this profile has not been measured before)"
    return "\n".join(f"{name}: {bool(passed)}{note if name in failed else ''}" for name, passed in checks.items())
