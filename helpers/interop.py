"""GPT-2 folders that transformers reads and writes, and the plain weight files that others have left."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch import Tensor
from transformers import GPT2Config
from transformers.convert_slow_tokenizer import bytes_to_unicode

from helpers.base.errors import CheckpointError
from helpers.base.files import write_json
from helpers.base.weights import PICKLED, SAFE, downloaded, read_weights
from helpers.config import GPTConfig
from helpers.data import gpt2_tokenizer
from helpers.model import GPT
from helpers.tokenizer import BPETokenizer, last_merge

PLAIN = ("model_state_dict.pth", "model.pt", "trained_model.pt")  # as public GPT-2 projects name theirs
TRANSPOSED = re.compile(r"(c_attn|c_proj|c_fc)\.weight$")  # transformers stores these (in, out)
NOT_OURS = re.compile(r"\.attn\.(bias|masked_bias)$")  # causal masks, which some models store
REQUIRED = {  # what a config.json must say, or leave out, for the model to be ours
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def to_huggingface(model: GPT, folder: str | Path, tokenizer: BPETokenizer | None = None) -> Path:
    """Write `folder` so that transformers loads model and tokenizer from it: `GPT2LMHeadModel`, `AutoTokenizer`.

    tokenizer: GPT-2's unless told; a model with a smaller vocabulary needs its own. Special tokens in a text stay text
    there, as here. Raises ValueError if the tokenizer is not the model's or the weights are in 8 bits.
    """
    config, folder = model.config, Path(folder)
    tokenizer = tokenizer or gpt2_tokenizer()
    if tokenizer.n_vocab != config.vocab_size:
        raise ValueError(
            f"the model has {config.vocab_size:,} vocabulary entries, the tokenizer {tokenizer.n_vocab:,}: "
            "pass the model's own"
        )
    if any(p.dtype == torch.int8 for p in model.parameters()):
        raise ValueError("these weights are in 8 bits: export the model that they were made of")
    weights = {name: p.detach().float().cpu() for name, p in model.named_parameters()}
    for name in [n for n in weights if n.endswith("weight") and "wte" not in n and "wpe" not in n]:
        bias = name.removesuffix("weight") + "bias"  # transformers' GPT-2 always has them
        weights.setdefault(bias, torch.zeros(len(weights[name])))
    weights = {k: (w.t() if TRANSPOSED.search(k) else w).contiguous() for k, w in weights.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / SAFE, metadata={"format": "pt"})
    _their_config(config).save_pretrained(folder)
    _write_tokenizer(tokenizer, folder, config.block_size)
    return folder


def _their_config(config: GPTConfig) -> GPT2Config:
    sizes = {"n_positions": config.block_size, "n_ctx": config.block_size, "vocab_size": config.vocab_size}
    sizes |= {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd")}
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout)
    ends = dict.fromkeys(("bos_token_id", "eos_token_id"), 50256 if config.vocab_size > 50256 else None)
    return GPT2Config(**sizes, **drops, **ends, architectures=["GPT2LMHeadModel"], dtype="float32")


def _write_tokenizer(tokenizer: BPETokenizer, folder: Path, longest: int) -> None:
    """tokenizer.json, vocab.json and merges.txt with the ids and merges of `tokenizer`."""
    ranks, names = tokenizer.ranks(), bytes_to_unicode()  # GPT-2's files spell a byte as a printable character
    spelt = {token: "".join(names[byte] for byte in token) for token in ranks}
    merges = [tuple(spelt[part] for part in last_merge(token, ranks)) for token in ranks if len(token) > 1]
    vocab = {spelt[token]: i for token, i in ranks.items()}
    theirs = Tokenizer(BPE(vocab=vocab, merges=merges))
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = decoders.ByteLevel()
    for name in sorted(tokenizer.encoding.special_tokens_set):
        theirs.add_special_tokens([name])
    theirs.save(str(folder / "tokenizer.json"))
    theirs.model.save(str(folder))  # vocab.json and merges.txt
    settings = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": longest, "split_special_tokens": True}
    none = {} if tokenizer.encoding.special_tokens_set else dict.fromkeys(("bos_token", "eos_token", "unk_token"))
    write_json(folder / "tokenizer_config.json", {**settings, "clean_up_tokenization_spaces": False, **none})


def from_huggingface(source: str | Path, n_head: int | None = None) -> GPT:
    """A GPT with someone else's GPT-2 weights, of any size, in eval mode.

    source: a folder that transformers wrote; the name of one on the Hugging Face hub, "openai-community/gpt2" for
    OpenAI's own (downloaded); a file with a plain state dict, or a folder with one of PLAIN. Rows of padding behind
    GPT-2's 50,257 are cut off. n_head: for state dicts, which do not say it; 64-wide heads unless told.
    Raises CheckpointError if there is nothing, if it is damaged, or if it is no GPT-2 of this design.
    """
    path = Path(source)
    plain = path if path.is_file() else next((path / name for name in PLAIN if (path / name).is_file()), None)
    if not path.exists():
        path = downloaded(str(source))
    if (path / "config.json").is_file():
        config = _read_config(path / "config.json")
        file = next((path / name for name in (SAFE, PICKLED) if (path / name).is_file()), path / SAFE)
        state, n_head = _ours(read_weights(file), path), config["n_head"]
    elif plain is not None:
        state = _ours(read_weights(plain), plain)
    else:
        raise CheckpointError(f"{path} has no config.json and none of {', '.join(PLAIN)}: is it a GPT-2's folder?")
    return _built(state, n_head, source)


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        n_embd = config["n_embd"]
        other = [f"{k}={config[k]!r}" for k, ours in REQUIRED.items() if config.get(k, ours) != ours]
        other += [f"n_inner={config['n_inner']}"] if config.get("n_inner") not in (None, 4 * n_embd) else []
        config["n_head"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is no configuration of a GPT-2 ({error!r})") from error
    if other:
        raise CheckpointError(f"{file.parent} is not a GPT-2 of this design: {', '.join(other)}")
    return config


def _ours(state: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """The same tensors under our names and in our shapes."""
    names = {re.sub(r"^(_orig_mod\.|module\.)+", "", name): name for name in state}  # compile's and DDP's prefixes
    ours = {
        name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": state[old].float()
        for name, old in names.items()
        if not NOT_OURS.search(name)
    }
    wte = ours.get("transformer.wte.weight")
    first = ours.get("transformer.h.0.attn.c_attn.weight")
    if wte is None or first is None or "transformer.wpe.weight" not in ours:
        raise CheckpointError(f"{source} holds no GPT-2: its tensors are {', '.join(sorted(state)[:4])}, …")
    if first.shape[0] == wte.shape[1]:  # (in, out), as transformers stores it
        ours = {k: w.t().contiguous() if TRANSPOSED.search(k) else w for k, w in ours.items()}
    head = ours.pop("lm_head.weight", wte)
    if not torch.equal(head, wte):
        raise CheckpointError(f"{source} has a head of its own beside the embedding; a GPT-2's head is tied to it")
    return ours


def _built(state: dict[str, Tensor], n_head: int | None, source: str | Path) -> GPT:
    wte, wpe = state["transformer.wte.weight"], state["transformer.wpe.weight"]
    if 50_257 < len(wte) <= 50_304:
        state["transformer.wte.weight"] = wte[:50_257]  # the rest is padding
    layers = {int(found[1]) for name in state if (found := re.match(r"transformer\.h\.(\d+)\.", name))}
    n_embd, bias = wte.shape[1], "transformer.ln_f.bias" in state
    try:
        sizes = {"n_layer": len(layers), "n_head": n_head or max(1, n_embd // 64), "n_embd": n_embd, "bias": bias}
        model = GPT(GPTConfig(len(wpe), len(state["transformer.wte.weight"]), **sizes))
        model.load_state_dict({**state, "lm_head.weight": state["transformer.wte.weight"]}, strict=True)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{source} is not a GPT-2 of this design: {error}") from error
    return model.eval()
