"""Token healing: a prompt that ends inside a token is read as the tokens that its text may become."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from helpers.generate import Sampling, sample
from helpers.model import GPT
from helpers.runtime import evaluating

BACK = 3  # tokens taken back: a word that is cut late falls into several


@torch.inference_mode()
def heal(
    model: GPT,
    ids: list[int],
    vocabulary: Sequence[bytes],
    sampling: Sampling,
    generator: torch.Generator | None,
    back: int = BACK,
) -> list[int]:
    """A prompt's tokens, the last of them drawn anew: their text begins with the prompt's, and ends where a token does.

    vocabulary: the bytes of every token; back: how many tokens are taken back. They are drawn one by one among those
    that begin with the text still missing, or are its beginning (Athiwaratkun et al. 2024, arXiv 2403.08688), never
    hotter than the model itself: a text cut up as no training text is leads astray. A prompt of one token stays, and so
    does one that comes out longer than the model's context.
    """
    given = ids
    back = min(back, len(ids) - 1)
    ids, rest = ids[: len(ids) - back], b"".join(vocabulary[i] for i in ids[len(ids) - back :])
    own = replace(sampling, temperature=min(1.0, sampling.temperature), repetition_penalty=1.0)
    cache, new = model.new_cache(1, min(len(ids) + len(rest), model.config.block_size)), ids
    while rest:
        agrees = torch.tensor([_agrees(token, rest) for token in vocabulary])
        with evaluating(model):
            logits, _ = model(torch.tensor([new], device=cache.k.device), cache=cache)
        new = sample(logits[:, -1].masked_fill(~agrees.to(logits.device), -torch.inf), own, [generator])
        ids, rest = ids + new, rest[len(vocabulary[new[0]]) :]
        if len(ids) > model.config.block_size:
            return given
    return ids


def _agrees(token: bytes, rest: bytes) -> bool:
    """Whether a token is the beginning of the text that is missing, or begins with it and goes on in characters."""
    if not token.startswith(rest):
        return bool(token) and rest.startswith(token)
    try:
        return token[len(rest) :].decode() is not None
    except UnicodeDecodeError:
        return False
