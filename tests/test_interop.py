"""Interop: transformers reads what we write and we read what it, and others, have written; the rest is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from helpers.checkpoint import CheckpointError
from helpers.generate import generate
from helpers.interop import from_huggingface, to_huggingface
from helpers.quantize import quantize_int8
from tests.conftest import same, tiny_gpt
from tests.test_data import HOSTILE

IDX = torch.tensor([[1, 2, 3, 49, 7]])


@pytest.fixture(scope="module", params=["all rows", "some rows"])
def exported(request, gpt2, sample, tmp_path_factory):
    """A model, its tokenizer, and the folder that transformers is given."""
    tokenizer = gpt2 if request.param == "all rows" else gpt2.restricted_to(sample)
    model = tiny_gpt(seed=2, scale=5.0, vocab_size=tokenizer.n_vocab)
    return model, tokenizer, to_huggingface(model, tmp_path_factory.mktemp("exported"), tokenizer)


def test_transformers_computes_the_same_logits_and_says_the_same(exported):
    model, _, folder = exported
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(theirs, GPT2LMHeadModel)
    with torch.no_grad():
        assert (theirs(IDX).logits - model(IDX)[0]).abs().max() < 1e-4
    said = theirs.generate(IDX, max_new_tokens=11, do_sample=False, pad_token_id=0)
    assert torch.equal(said, generate(model, IDX, 11, temperature=0))


def test_transformers_tokenizer_gives_our_ids_on_hostile_text(exported, sample):
    _, tokenizer, folder = exported
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in (*HOSTILE, sample, "x<|endoftext|>y"):
        ids = tokenizer.encode(text)
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text
    assert theirs.model_max_length == 16


def test_the_folder_holds_what_transformers_expects_and_no_more(exported):
    files = {path.name for path in exported[2].iterdir()}
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"}
    assert files == {"config.json", "model.safetensors"} | tokenizer


def test_transformers_own_gpt2_goes_in_and_out_unchanged(gpt2, tmp_path):
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(n_positions=16, n_layer=2, n_head=2, n_embd=16)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = from_huggingface(tmp_path / "theirs")
    with torch.no_grad():
        assert (theirs(IDX).logits - ours(IDX)[0]).abs().max() < 1e-5
    to_huggingface(ours, tmp_path / "ours", gpt2)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert before.keys() == after.keys()
    assert same(before.values(), (after[name] for name in before))
    settings = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("theirs", "ours")]
    assert not {k for k, v in settings[1].items() if settings[0].get(k, v) != v and not k.endswith("pdrop")}


def test_openais_names_without_prefix_and_with_masks_are_read(tmp_path):
    model = tiny_gpt(scale=3.0)
    folder = tmp_path / "gpt2"
    folder.mkdir()
    weights = {k.removeprefix("transformer."): w.T if _conv(k) else w for k, w in model.named_parameters()}
    weights |= {f"h.{n}.attn.bias": torch.ones(1, 1, 16, 16).tril() for n in range(2)}
    save_file({k: w.detach().contiguous() for k, w in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 16, "n_head": 2}))
    assert same(from_huggingface(folder).parameters(), model.parameters())


def _conv(name: str) -> bool:
    return name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))


@pytest.mark.parametrize("name", ["model_state_dict.pth", "model.pt", "trained_model.pt"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module._orig_mod."])
def test_plain_state_dicts_of_others_are_read(tmp_path, name, transposed, prefix):
    model = tiny_gpt(scale=3.0)
    state = {prefix + k: w.T if transposed and _conv(k) else w for k, w in model.state_dict().items()}
    torch.save(state if name != "model.pt" else {"model": state, "step": 7}, tmp_path / name)
    assert same(from_huggingface(tmp_path, n_head=2).parameters(), model.parameters())
    assert same(from_huggingface(tmp_path / name, n_head=2).parameters(), model.parameters())


def test_rows_of_padding_are_cut_off(tmp_path):
    torch.save(tiny_gpt(vocab_size=50_304, n_embd=4).state_dict(), tmp_path / "model.pt")
    assert from_huggingface(tmp_path).config.vocab_size == 50_257


def test_a_model_without_biases_is_exported_with_zeros(gpt2, tmp_path):
    model = tiny_gpt(scale=3.0, bias=False, vocab_size=50_257)
    theirs = GPT2LMHeadModel.from_pretrained(to_huggingface(model, tmp_path, gpt2))
    with torch.no_grad():
        assert (theirs(IDX).logits - model(IDX)[0]).abs().max() < 1e-4


def test_what_cannot_be_exported_is_refused(gpt2, tmp_path):
    with pytest.raises(ValueError, match="50 vocabulary entries, the tokenizer 50,257: pass the model's own"):
        to_huggingface(tiny_gpt(), tmp_path / "new")
    with pytest.raises(ValueError, match="in 8 bits"):
        to_huggingface(quantize_int8(tiny_gpt(vocab_size=50_257)), tmp_path / "new", gpt2)
    assert not (tmp_path / "new").exists()


def spoil(folder, what):
    """A folder with one thing wrong, and what the error must say of it."""
    model = tiny_gpt()
    state = model.state_dict()
    if what == "nothing there":
        return ["model_state_dict.pth", "is it a GPT-2's folder?"]
    if what == "another architecture":
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "n_embd": 16, "n_head": 2}))
        return ["not a GPT-2 of this design", "model_type='llama'"]
    if what == "damaged configuration":
        (folder / "config.json").write_text('{"model_type": "gpt')
        return ["config.json is no configuration"]
    if what == "configuration without weights":
        (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 16, "n_head": 2}))
        return ["cannot read weights from", "model.safetensors"]
    if what == "code":
        torch.save(model, folder / "model.pt")
        return ["cannot read weights", "nothing that runs code"]
    if what == "cut off":
        torch.save(state, folder / "model.pt")
        content = (folder / "model.pt").read_bytes()
        (folder / "model.pt").write_bytes(content[: len(content) // 2])
        return ["cannot read weights"]
    if what == "no state dict":
        torch.save([1, 2], folder / "model.pt")
        return ["holds no state dict"]
    if what == "another model":
        torch.save({"fc.weight": torch.ones(2)}, folder / "model.pt")
        return ["holds no GPT-2", "fc.weight"]
    if what == "untied head":
        torch.save({**state, "lm_head.weight": torch.ones(50, 16)}, folder / "model.pt")
        return ["head of its own"]
    torch.save({k: w for k, w in state.items() if k != "transformer.h.1.mlp.c_fc.bias"}, folder / "model.pt")
    return ["not a GPT-2 of this design", "transformer.h.1.mlp.c_fc.bias"]


@pytest.mark.parametrize(
    "what",
    [
        "nothing there",
        "another architecture",
        "damaged configuration",
        "configuration without weights",
        "code",
        "cut off",
        "no state dict",
        "another model",
        "untied head",
        "a tensor missing",
    ],
)
def test_what_is_no_gpt2_is_refused_with_its_reason(tmp_path, what):
    words = spoil(tmp_path, what)
    with pytest.raises(CheckpointError) as caught:
        from_huggingface(tmp_path)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_hub_name_without_network_and_a_folder_that_is_not_there(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="check the name and the network"):
        from_huggingface("no-one/never-made-this")
    with pytest.raises(CheckpointError, match="no folder or file /no/where/at/all"):
        from_huggingface("/no/where/at/all")
