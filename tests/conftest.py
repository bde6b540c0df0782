"""What the tests share: small models, small texts, and places that are not the reader's own."""

import os
from pathlib import Path

import pytest
import torch

from helpers.base.files import ROOT
from helpers.base.group import Group
from helpers.config import GPTConfig, Recipe
from helpers.data import BPETokenizer, gpt2_tokenizer, load_corpus
from helpers.model import GPT
from helpers.runtime import Runtime
from helpers.train import Trainer
from helpers.windows import Windows

CPU = Runtime(torch.device("cpu"), torch.float32, ("cpu: for tests", "fp32: for tests"))
# Inductor's cache holds kernels of one processor class only: those of another, played on the same machine, end Python.
CLASS = torch.backends.cpu.get_cpu_capability().replace(" ", "-")
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(ROOT / "build/inductor" / CLASS))

TINY = GPTConfig(block_size=16, vocab_size=50, n_layer=2, n_head=2, n_embd=16)


def tiny_gpt(seed: int = 0, scale: float = 1.0, **changes) -> GPT:
    """A random model of a few thousand weights; a larger scale makes its opinions stronger."""
    torch.manual_seed(seed)
    model = GPT(GPTConfig(**{**vars(TINY), **changes}))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    return model.eval()


def tiny_trainer(
    tokens: torch.Tensor,
    seed: int = 0,
    runtime: Runtime = CPU,
    dropout: float = 0.0,
    group: Group | None = None,
    vocab_size: int = TINY.vocab_size,
    **changes,
) -> Trainer:
    """A trainer of a tiny model on `tokens`."""
    recipe = Recipe(**{"steps": 12, "window": 8, "batch_size": 4, **changes})
    model = tiny_gpt(seed, dropout=dropout, vocab_size=vocab_size)
    model.init_weights(recipe.zero_residual)
    windows = Windows(tokens, recipe.window, recipe.batch_size, recipe.policy, seed, recipe.halved_steps)
    return Trainer(model, windows, recipe, runtime, group)


def same(ours, theirs) -> bool:
    """Whether tensors are equal to the last bit, one by one."""
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


LONG = ("notebooks/", "tests/test_session", "tests/test_watch", "tests/test_parallel", "tests/test_memory_kept")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first, so that of several processes none works on alone at the end."""
    items.sort(key=lambda item: next((n for n, name in enumerate(LONG) if item.nodeid.startswith(name)), len(LONG)))


TRAINED = ("04", "05", "07", "08")  # notebooks that train the main model or read it


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """With --dist loadfile a file stays in one process; so do the notebooks of TRAINED, in order, and the others."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    scheduler = LoadFileScheduling(config, log)
    of_file = scheduler._split_scope

    def scope(nodeid: str) -> str:
        if ".ipynb::" not in nodeid:
            return of_file(nodeid)
        return "notebooks of one model" if Path(nodeid).name.startswith(TRAINED) else "notebooks by themselves"

    scheduler._split_scope = scope
    return scheduler


@pytest.fixture(scope="session")
def tokens() -> torch.Tensor:
    """300 random tokens out of 50."""
    return torch.randint(50, (300,), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def sample() -> str:
    return load_corpus("sample").text


@pytest.fixture(scope="session")
def gpt2() -> BPETokenizer:
    return gpt2_tokenizer()
