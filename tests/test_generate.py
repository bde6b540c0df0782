"""Generation: the cache changes nothing, the generators are one's own, and the settings do what they say."""

import random
from itertools import cycle

import pytest
import torch
import torch.nn.functional as F

from helpers.config import GPTConfig
from helpers.generate import Decoder, Sampling, generate, next_token_probs, sample
from helpers.model import KVCache
from helpers.serve.stream import stream_text
from tests.conftest import tiny_gpt
from tests.reference import hugging_face, naive_greedy


@pytest.mark.parametrize("prompt", [1, 5, 16])
def test_greedy_decoding_is_the_same_with_and_without_cache(tokens, prompt):
    model = tiny_gpt(seed=2, scale=5.0)
    idx = tokens[: 3 * prompt].view(3, prompt)
    with torch.no_grad():
        expected = naive_greedy(model, idx, 60, window=16)  # far past the context
    assert torch.equal(generate(model, idx, 60, temperature=0), expected)


@pytest.mark.parametrize("window", [1, 2, 7, 16])
def test_a_smaller_window_slides_alike(tokens, window):
    model = tiny_gpt(seed=2, scale=5.0)
    with torch.no_grad():
        expected = naive_greedy(model, tokens[None, :1], 40, window)
    assert torch.equal(generate(model, tokens[None, :1], 40, temperature=0, window=window), expected)


def test_greedy_decoding_is_hugging_faces(tokens):
    model = tiny_gpt(seed=2, scale=5.0)
    theirs = hugging_face(model).generate(
        tokens[None, :4], max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    assert torch.equal(generate(model, tokens[None, :4], 12, temperature=0), theirs)


def test_a_batch_says_what_its_rows_say_alone(tokens):
    model, idx = tiny_gpt(seed=2, scale=5.0), tokens[:12].view(3, 4)
    together = generate(model, idx, 30, temperature=0)
    for row, alone in zip(together, idx, strict=True):
        assert torch.equal(row, generate(model, alone[None], 30, temperature=0)[0])


def test_the_same_seed_gives_the_same_text_whatever_else_draws(tokens):
    model, idx = tiny_gpt(scale=3.0), tokens[None, :4].repeat(4, 1)
    first = generate(model, idx, 20, generator=torch.Generator().manual_seed(5))
    torch.rand(100)
    assert torch.equal(first, generate(model, idx, 20, generator=torch.Generator().manual_seed(5)))
    assert not torch.equal(first, generate(model, idx, 20, generator=torch.Generator().manual_seed(6)))
    assert len({tuple(row) for row in first.tolist()}) > 1  # several samples differ among themselves


def test_a_private_generator_leaves_the_global_one_alone(tokens):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    generate(tiny_gpt_state_kept(), tokens[None, :4], 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(before, torch.get_rng_state())


def tiny_gpt_state_kept():
    state = torch.get_rng_state()
    model = tiny_gpt()
    torch.set_rng_state(state)
    return model


LOGITS = torch.tensor([3.0, 2.0, 1.0, 0.0, -1.0])


def test_temperature_divides_the_logits():
    assert torch.allclose(next_token_probs(LOGITS, Sampling(2.0)), (LOGITS / 2).softmax(-1))
    assert next_token_probs(LOGITS, Sampling(0)).tolist() == [1, 0, 0, 0, 0]


def test_top_k_keeps_the_likeliest_k():
    probs = next_token_probs(LOGITS, Sampling(top_k=2))
    assert (probs > 0).tolist() == [True, True, False, False, False]
    assert probs.sum().item() == pytest.approx(1)
    assert torch.allclose(next_token_probs(LOGITS, Sampling(top_k=99)), LOGITS.softmax(-1))
    assert int((next_token_probs(torch.ones(5), Sampling(top_k=2)) > 0).sum()) == 2  # of equals, two


@pytest.mark.parametrize(("p", "kept"), [(0.01, 1), (0.63, 1), (0.65, 2), (0.86, 2), (0.88, 3), (1.0, 5)])
def test_top_p_keeps_the_fewest_that_reach_p(p, kept):
    probs = next_token_probs(LOGITS, Sampling(top_p=p))  # softmax: 0.636 0.234 0.086 0.032 0.012
    assert int((probs > 0).sum()) == kept
    assert probs.sum().item() == pytest.approx(1)


def test_top_p_of_one_keeps_a_whole_vocabulary():
    logits = torch.randn(2, 50_257, generator=torch.Generator().manual_seed(0))
    assert (next_token_probs(logits, Sampling(top_p=1.0)) > 0).all()


def test_a_tiny_temperature_is_nearly_greedy():
    assert torch.equal(next_token_probs(LOGITS, Sampling(1e-40)), next_token_probs(LOGITS, Sampling(0)))


def test_sampling_follows_the_probabilities():
    probs = next_token_probs(LOGITS, Sampling(1.5, top_k=3))
    generators, rows = [torch.Generator().manual_seed(0)] * 20_000, LOGITS.expand(20_000, -1)
    draws = torch.tensor(sample(rows, Sampling(1.5, top_k=3), generators))
    assert torch.allclose(draws.bincount(minlength=5) / 20_000, probs, atol=0.02)


def test_generation_leaves_the_model_as_it_was(tokens):
    model = tiny_gpt(dropout=0.5)
    model.train()
    generate(model, tokens[None, :4], 3)
    assert model.training


PROMPTS = ([3], [1, 2, 3, 4, 5], [7, 8], [1, 2, 3, 4, 5], list(range(16)))  # the last fills the context


def decoded(model, prompts, n, sampling, seeds, window=None, draft=None) -> list[list[int]]:
    decoder = Decoder(model, prompts, sampling, [torch.Generator().manual_seed(s) for s in seeds], window, draft)
    while len(decoder.texts[0]) < len(prompts[0]) + n:
        decoder.step(most=len(prompts[0]) + n - len(decoder.texts[0]))
    return decoder.texts


@pytest.mark.parametrize("window", [3, 16])
def test_prompts_of_different_lengths_say_together_what_they_say_alone(window):
    model, prompts = tiny_gpt(seed=2, scale=5.0), [p[:window] for p in PROMPTS]
    for sampling in (
        Sampling(temperature=0),
        Sampling(1.5),
        Sampling(1.5, top_k=5),
        Sampling(temperature=0, repetition_penalty=2),
    ):
        together = decoded(model, prompts, 40, sampling, range(5), window)
        for seed, prompt in enumerate(prompts):
            assert together[seed] == decoded(model, [prompt], 40, sampling, [seed], window)[0]


def test_a_text_does_not_change_when_its_neighbours_end():
    model, sampling = tiny_gpt(seed=2, scale=5.0), Sampling(1.5)
    whole = decoded(model, PROMPTS, 30, sampling, range(5))
    decoder = Decoder(model, PROMPTS, sampling, [torch.Generator().manual_seed(s) for s in range(5)])
    for n in range(30):
        if n in (0, 3, 17):  # before the first step, while others are full, late
            decoder.end({0: 2, 3: 0, 17: 4}[n])
        decoder.step()
    assert decoder.running == [1, 3]
    assert [decoder.texts[i] for i in (1, 3)] == [whole[i] for i in (1, 3)]
    assert len(decoder.texts[2]) == 2


def passes(model) -> list[int]:
    """Grows by the width of every forward pass of the model from now on."""
    widths = []
    model.register_forward_pre_hook(lambda _, args: widths.append(args[0].size(1)))
    return widths


@pytest.mark.parametrize("window", [1, 3, 16])  # a window of 1 has no room for a draft
@pytest.mark.parametrize("prompt", [[3], list(range(16))])
@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0), Sampling(1.5), Sampling(1.5, top_k=5), Sampling(0, repetition_penalty=2)]
)
def test_draft_tokens_change_nothing_that_is_written(window, prompt, sampling):
    model, rng, prompt = tiny_gpt(seed=2, scale=5.0), random.Random(0), prompt[:window]
    (plain,) = decoded(model, [prompt], 60, sampling, [7], window)
    drafts = {
        "right": lambda ids: plain[len(ids) :][:5],
        "wrong": lambda ids: [(token + 1) % 50 for token in plain[len(ids) :][:5]],
        "half right": lambda ids: [rng.choice([token, 0]) for token in plain[len(ids) :][:9]],
        "none": lambda _: [],
    }
    for name, draft in drafts.items():
        assert decoded(model, [prompt], 60, sampling, [7], window, draft) == [plain], name


def test_a_right_draft_saves_passes_and_a_wrong_one_costs_none():
    sampling = Sampling(temperature=0)
    (plain,) = decoded(tiny_gpt(seed=2, scale=5.0), [[3]], 15, sampling, [0])
    right = [*plain, 0]
    wrong = [(token + 1) % 50 for token in right]
    for drafted, expected in ((right, [6, 6, 3]), (wrong, [6] * 10 + [5, 4, 3, 2, 1])):  # no more than is asked for
        model = tiny_gpt(seed=2, scale=5.0)
        widths = passes(model)
        assert decoded(model, [[3]], 15, sampling, [0], draft=lambda ids, of=drafted: of[len(ids) :][:5]) == [plain]
        assert widths == expected


def test_generate_takes_a_draft(tokens):
    model = tiny_gpt(seed=2, scale=5.0)
    plain = generate(model, tokens[None, :4], 12, temperature=0)
    widths = passes(model)
    drafted = generate(model, tokens[None, :4], 12, temperature=0, draft=lambda ids: plain[0, len(ids) :].tolist())
    assert torch.equal(drafted, plain)
    assert len(widths) == 1


def test_only_a_text_that_is_alone_reads_drafts():
    model, sampling = tiny_gpt(seed=2, scale=5.0), Sampling(1.5)
    whole = decoded(model, PROMPTS[:2], 30, sampling, range(2))
    widths = passes(model)
    generators = [torch.Generator().manual_seed(s) for s in range(2)]
    offsets = cycle((0, 1))  # right, wrong, right, …

    def draft(ids):
        offset = next(offsets)
        return [(token + offset) % 50 for token in whole[1][len(ids) :][:4]]

    decoder = Decoder(model, PROMPTS[:2], sampling, generators, draft=draft)
    for _ in range(5):
        decoder.step()
    assert widths == [1] * 5
    decoder.end(0)
    while len(decoder.texts[1]) < len(whole[1]):
        decoder.step(most=len(whole[1]) - len(decoder.texts[1]))
        decoder.end(0)  # it has ended: nothing happens
    assert decoder.texts[1] == whole[1]
    assert max(widths) == 5


def test_a_repetition_penalty_takes_from_the_history():
    logits = torch.tensor([[3.0, 2.9, -1.0, -1.5]])
    assert sample(logits, Sampling(temperature=0, repetition_penalty=1.1), [None], [[0]]) == [1]
    assert sample(logits - 3, Sampling(temperature=0, repetition_penalty=1.1), [None], [[0]]) == [0]  # 0 stays 0
    assert sample(logits - 4, Sampling(temperature=0, repetition_penalty=1.2), [None], [[0]]) == [1]  # -1 becomes -1.2
    assert logits[0, 0] == 3


@pytest.mark.parametrize(
    "nonsense",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_k": float("nan")},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_p": float("nan")},
        {"repetition_penalty": 0},
        {"repetition_penalty": float("nan")},
    ],
)
def test_nonsense_is_no_way_to_sample(nonsense):
    with pytest.raises(ValueError, match=next(iter(nonsense))):
        Sampling(**nonsense)


@pytest.mark.parametrize("prompts", [[], [[]], [[1], []], [[1] * 17]])
def test_a_decoder_needs_prompts_that_fit(prompts):
    with pytest.raises(ValueError, match=r"nothing to go on from|shorten"):
        Decoder(tiny_gpt(), prompts)


class Scripted(torch.nn.Module):
    """A model that says what it is told to, whatever it reads."""

    def __init__(self, *scripts: bytes) -> None:
        super().__init__()
        self.config, self.scripts, self.at = GPTConfig(block_size=64, vocab_size=256, n_embd=12), scripts, 0

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        return KVCache(GPTConfig(block_size=64, n_layer=1, n_head=1, n_embd=1), batch, capacity, torch.zeros(1))

    def hidden(self, idx, cache):
        cache.end += idx.size(1)

    def forward(self, idx, cache):
        cache.end += idx.size(1)
        alive = [s for s in self.scripts if len(s) > self.at]
        self.at += 1
        return F.one_hot(torch.tensor([s[self.at - 1] for s in alive]), 256).float()[:, None], None


def streamed(*scripts: bytes, stop=(), n=None) -> list[list[str]]:
    """The pieces of each text, a byte a token."""
    decoder = Decoder(Scripted(*scripts), [[65]] * len(scripts), Sampling(temperature=0))
    steps = stream_text(decoder, lambda i: bytes([i]), n or max(map(len, scripts)), stop)
    return [list(pieces) for pieces in zip(*steps, strict=True)]


def test_a_character_of_several_tokens_is_never_broken():
    (pieces,) = streamed("aé🙂b".encode())
    assert pieces == ["a", "", "é", "", "", "", "🙂", "b"]


def test_what_is_no_character_shows_as_a_mark():
    assert streamed("🙂".encode()[:2])[0] == ["", "\ufffd"]  # cut off by the last step
    assert "".join(streamed(b"a\xffb")[0]) == "a\ufffdb"


def test_a_stop_string_ends_a_text_and_is_held_back_until_it_is_decided():
    assert streamed(b"one##two", stop=["##"])[0] == ["o", "n", "e", "", ""]
    assert streamed(b"a#b##c", stop=["##"])[0] == ["a", "", "#b", "", ""]
    assert streamed(b"ab#", stop=["##"])[0] == ["a", "b", "#"]  # all that will come
    assert streamed(b"abcabd", stop=["abd", "zz"])[0] == ["", "", "abc", "", "", ""]
    with pytest.raises(ValueError, match="empty stop"):
        streamed(b"a", stop=[""])


def test_one_text_ends_and_the_others_go_on():
    first, second = streamed(b"a.", b"bcdef", stop=["."])
    assert "".join(first) == "a"
    assert "".join(second) == "bcdef"
