"""Checkpoints: a folder with weights as safetensors, the rest as JSON, and what a resumed run needs."""

import json
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_file
from torch import nn

from helpers.base.errors import CheckpointError, with_entries
from helpers.base.folders import beside, move_in, remove, settle
from helpers.config import GPTConfig

WEIGHTS, META, TRAINING = "model.safetensors", "meta.json", "training.pt"


def save_checkpoint(folder: str | Path, model: nn.Module, meta: dict[str, Any], training: dict | None = None) -> Path:
    """Write `folder`: model.safetensors, meta.json (the model's configuration and `meta`) and, to resume, training.pt.

    The folder is written aside and moved into place whole, so a kill at any moment leaves the old one or the new.
    Tied weights are stored once. Raises CheckpointError if the disk is full or the place read-only; the old
    checkpoint is then untouched.
    """
    folder = Path(folder)
    aside = beside(folder, "partial")
    try:
        remove(aside)
        aside.mkdir(parents=True)
        named = chain(model.named_parameters(), model.named_buffers())  # what is tied comes once
        weights = {name: p.detach().cpu().contiguous() for name, p in named}
        save_file(weights, aside / WEIGHTS, metadata={"format": "pt"})
        text = json.dumps({"config": vars(model.config), **meta}, indent=1)
        (aside / META).write_text(text, encoding="utf-8")
        if training is not None:
            torch.save(training, aside / TRAINING)
        move_in(aside, folder)
    except (OSError, SafetensorError, RuntimeError) as error:
        remove(aside)
        free = shutil.disk_usage(folder.parent).free if folder.parent.exists() else 0
        raise CheckpointError(
            f"cannot write the checkpoint {folder} ({error}); {free / 2**20:,.0f} MiB are free there. "
            "Free some space or choose another folder with --out or RUNS_DIR; the last checkpoint is untouched."
        ) from error
    return folder


def load_checkpoint(folder: str | Path, model_class: type[nn.Module]) -> tuple[nn.Module, dict[str, Any]]:
    """The model saved in `folder`, on the CPU and in eval mode, and its meta.json.

    model_class is built from the stored configuration: `load_checkpoint(folder, GPT)`.
    Raises CheckpointError if there is none, if it is damaged, or if it belongs to another kind of model.
    """
    meta = read_meta(folder)
    try:
        model = model_class(GPTConfig(**meta["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}/{META} holds no GPT configuration ({error}); train again") from error
    load_weights(folder, model)
    return model.eval(), meta


def read_meta(folder: str | Path, needs: tuple[str, ...] = ()) -> dict[str, Any]:
    """What meta.json says. CheckpointError if there is no checkpoint, or the file is damaged or lacks `needs`."""
    folder = settle(Path(folder))
    if not folder.exists():
        raise CheckpointError(
            f"no checkpoint in {folder}: run notebook 04_overfitting (`make run-all`) "
            "or `python -m helpers train`, with the same profile. (On Colab every notebook has a machine of its own: "
            "mount Drive first, in both, or run one of the two on this machine.)"
        )
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is no checkpoint of this series: it has no {META}") from error
    except ValueError as error:
        raise CheckpointError(f"{folder}/{META} is damaged ({error}); delete {folder} and train again") from error
    return with_entries(folder / META, meta, needs)


def load_weights(folder: str | Path, model: nn.Module) -> None:
    """Fill `model` with the weights in `folder`; every name and every shape must agree, else CheckpointError."""
    file = settle(Path(folder)) / WEIGHTS
    try:
        load_model(model, file, strict=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is no checkpoint of this series: it has no {WEIGHTS}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{file} is damaged ({error}); delete {folder} and train again") from error
    except RuntimeError as error:
        raise CheckpointError(f"{file} belongs to another model: {error}") from error


def read_training(folder: str | Path, needs: tuple[str, ...] = ()) -> dict[str, Any]:
    """What `save_checkpoint` was given as `training`. CheckpointError if it is missing, damaged or lacks `needs`."""
    file = settle(Path(folder)) / TRAINING
    try:
        training = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} cannot be resumed: it has no {TRAINING}; start over with --fresh") from error
    except Exception as error:  # bytes that are no pickle end in any of a dozen errors
        raise CheckpointError(f"{file} is damaged ({error}); delete {folder} and train again") from error
    return with_entries(file, training, needs)


def has_checkpoint(folder: str | Path) -> bool:
    """Whether there is a checkpoint, one that a kill struck while it was being replaced included."""
    return settle(Path(folder)).exists()


def clear_checkpoint(folder: str | Path) -> None:
    """Delete a checkpoint and what a kill left beside it. Raises CheckpointError if the folder is no checkpoint."""
    folder = Path(folder)
    if has_checkpoint(folder):
        read_meta(folder)
    for path in (folder, beside(folder, "partial"), beside(folder, "previous")):
        remove(path)
