"""transformers' GPT-2 with our weights."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from helpers.model import GPT

TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def hugging_face(model: GPT) -> GPT2LMHeadModel:
    c = model.config
    sizes = {"n_positions": c.block_size, "vocab_size": c.vocab_size, "bos_token_id": 0, "eos_token_id": 0}
    sizes |= {"n_layer": c.n_layer, "n_head": c.n_head, "n_embd": c.n_embd}
    theirs = GPT2LMHeadModel(GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))
    weights = model.state_dict()
    theirs.load_state_dict({k: w.T if k.endswith(TRANSPOSED) else w for k, w in weights.items()}, strict=True)
    return theirs.eval()


def naive_greedy(model: GPT, idx: torch.Tensor, n: int, window: int) -> torch.Tensor:
    """Greedy decoding without a cache: each token reads its context again; a full context keeps its newer half."""
    context = idx.size(1)
    for _ in range(n):
        if context > window:
            context = max(1, window // 2)
        logits = model(idx[:, -context:])[0][:, -1]
        idx = torch.cat((idx, logits.argmax(dim=-1, keepdim=True)), dim=1)
        context += 1
    return idx
