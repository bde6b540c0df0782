"""Weight files of others: fetched from the Hugging Face hub, and read without running what is in them."""

import pickle
import re
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from helpers.base.errors import CheckpointError

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"


def downloaded(name: str) -> Path:
    """The folder with a model's configuration and weights from the hub; CheckpointError if they cannot be had."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise CheckpointError(f"no folder or file {name}")
    try:
        return Path(snapshot_download(name, allow_patterns=["config.json", SAFE]))
    except Exception as error:  # the hub's client fails in many ways: no network, no such name, no permission
        raise CheckpointError(
            f"no folder {name} here, and none of that name could be fetched from the Hugging Face hub "
            f"({type(error).__name__}): check the name and the network"
        ) from error


def read_weights(file: Path) -> dict[str, Tensor]:
    """The state dict in a file, of safetensors or of `torch.save`; CheckpointError if it is damaged or holds none."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"cannot read weights from {file}: {str(error).splitlines()[0]}. It must hold tensors and nothing that "
            "runs code: save `model.state_dict()` alone"
        ) from error
    for key in ("model", "model_state_dict", "state_dict"):  # some wrap it in a training checkpoint
        state = state.get(key, state) if isinstance(state, dict) else {}
    if not state or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(f"{file} holds no state dict: save `model.state_dict()`")
    return state
