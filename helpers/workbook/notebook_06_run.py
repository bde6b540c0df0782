"""A tiny run, which an exercise of notebook 6 saves and restores."""

import torch
from torch import Tensor, nn


def new_run(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A tiny model and its optimizer."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, done: int) -> None:
    """Three steps that draw random numbers, at a rate that depends on the step."""
    for step in range(done, done + 3):
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()


def weights(model: nn.Module) -> Tensor:
    """All parameters, side by side."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def buffers(model: nn.Module) -> Tensor:
    """All buffers, side by side."""
    return torch.cat([b.flatten().double() for b in model.buffers()])


def moments(optimizer: torch.optim.Optimizer) -> Tensor:
    """All that the optimizer keeps, side by side."""
    return torch.cat([t.flatten() for kept in optimizer.state.values() for t in kept.values()])


def restored_again(restore, saved) -> Tensor:
    """The moments of one more run, into which what was saved is put."""
    model, optimizer = new_run(2)
    restore(saved, model, optimizer)
    return moments(optimizer)
