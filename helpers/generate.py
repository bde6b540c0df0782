"""Text from a model: one token after another, from a cache of what has been read."""

import torch
from torch import Tensor, nn

from helpers.windows import kept_context


def next_token_probs(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """(…, V) logits -> (…, V) probabilities of the next token.

    temperature divides the logits (0: all on the most likely token). top_k keeps the k most likely tokens. top_p
    keeps the fewest tokens that together reach p (nucleus sampling, Holtzman et al. 2020), the last one included.
    Raises ValueError for values outside temperature >= 0, top_k >= 1, 0 < top_p <= 1.
    """
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature} must be 0 (greedy) or more")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must lie in 0 < top_p <= 1")
    logits = logits.float()
    if temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature  # the likeliest at 0: a tiny temperature is safe
    if top_k is not None and top_k < logits.size(-1):
        best = logits.topk(top_k)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, best.indices, best.values)
    probs = logits.softmax(-1)
    if top_p is not None and top_p < 1:
        ordered, order = probs.sort(descending=True, stable=True)
        beyond = ordered.cumsum(-1) - ordered >= top_p  # what stands before this token is enough
        probs = probs.masked_fill(beyond.scatter(-1, order, beyond), 0.0)
        probs = probs / probs.sum(-1, keepdim=True)
    return probs


@torch.no_grad()
def generate(
    model: nn.Module,
    idx: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    window: int | None = None,
) -> Tensor:
    """idx: (B, T) prompts -> (B, T + max_new_tokens); one row a sample, so repeat a prompt for several.

    temperature 0 is greedy. generator: a seeded CPU generator of your own makes the text repeatable.
    window: the context to use, `block_size` unless told; a model trained on shorter windows knows no later
    positions, so pass what it was trained with. When the context is full, its newer half is read again.
    Raises ValueError for an empty prompt, one longer than the window, or sampling values that make no sense.
    """
    window = model.config.block_size if window is None else window
    if not 1 <= window <= model.config.block_size:
        raise ValueError(f"window={window} must lie between 1 and the model's block_size={model.config.block_size}")
    if idx.ndim != 2 or idx.size(1) == 0:
        raise ValueError(f"generate needs a prompt of at least one token, as (B, T); it was given {tuple(idx.shape)}")
    if idx.size(1) > window:
        raise ValueError(f"the prompt has {idx.size(1)} tokens, the context holds {window}: shorten it")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} must not be negative")
    was_training = model.training
    model.eval()
    try:
        cache, unread = model.new_cache(idx.size(0), window), idx
        for _ in range(max_new_tokens):
            if cache.length + unread.size(1) > window:
                cache.length, unread = 0, idx[:, -kept_context(window) :]
            logits = model(unread, cache=cache)[0][:, -1]  # (B, V)
            probs = next_token_probs(logits, temperature, top_k, top_p).cpu()
            greedy = temperature == 0
            choice = probs.argmax(-1, keepdim=True) if greedy else torch.multinomial(probs, 1, generator=generator)
            unread = choice.to(idx.device)  # (B, 1)
            idx = torch.cat((idx, unread), dim=1)
        return idx
    finally:
        model.train(was_training)
