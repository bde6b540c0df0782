"""What the checks of notebook 8 ask of attention with a cache, and of drafts that a model verifies."""

import torch
from torch import Tensor

from helpers.config import GPTConfig
from helpers.model import CausalSelfAttention
from helpers.workbook.check import NOTHING, expect, refuse


def same_numbers(a: Tensor, b: Tensor) -> bool:
    """Whether shape and numbers agree."""
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


def exercise_8_2(attend) -> str:
    """Attention of one token after the other, against that of all at once."""
    torch.manual_seed(0)
    attn = CausalSelfAttention(GPTConfig(block_size=8, vocab_size=16, n_layer=1, n_head=2, n_embd=8)).eval()
    attn.c_attn.weight.data.mul_(4)  # so that the weights of attention differ
    x = torch.randn(4, 8)
    wanted = attn(x[None])[0].detach()  # (4, 8)
    q, k, v = attn.c_attn(x).view(4, 3, 2, 4).permute(1, 2, 0, 3).detach()  # 3 x (2, 4, 4)
    cache = {"k": torch.empty(2, 0, 4), "v": torch.empty(2, 0, 4)}
    given = x.clone()
    for t in range(4):
        found = attend(attn, x[t : t + 1], cache)
        refuse(not torch.equal(x, given), "Your function changes x itself: others still need it.")
        refuse(found is None, NOTHING)
        expect(found, wanted[t : t + 1], _attention_slip(attn, q, k, v, t, found), 1e-5)
        for name, rows in (("k", k), ("v", v)):
            kept = f'After token {t + 1} `cache["{name}"]` should be (2, {t + 1}, 4), not {tuple(cache[name].shape)}: '
            refuse(cache[name].shape != rows[:, : t + 1].shape, kept + f'`cache["{name}"] = torch.cat(…, dim=1)`.')
            order = f'`cache["{name}"]` holds other numbers: the order in c_attn\'s output is query, key, value.'
            reverse = same_numbers(cache[name], rows[:, : t + 1].flip(1))
            refuse(t > 0 and reverse, f'`cache["{name}"]` holds the newest first: new ones go at the end.')
            expect(cache[name], rows[:, : t + 1], order, 1e-5)
    return "Token by token it gives what attention over the whole text gives."


def _attention_slip(attn, q: Tensor, k: Tensor, v: Tensor, t: int, found) -> str:
    """What the output at position t says about how it was computed."""
    q, past = q[:, t : t + 1], (k[:, : t + 1], v[:, : t + 1])

    def gives(scores: Tensor, values: Tensor, project: bool = True) -> bool:
        y = (scores.softmax(-1) @ values).reshape(1, -1)
        like = attn.c_proj(y) if project else y
        return isinstance(found, Tensor) and found.shape == like.shape and torch.allclose(found, like, atol=1e-5)

    scores, values = q @ past[0].mT, past[1]
    if gives(scores / 2, values, project=False):
        return "The heads' output is right, but it has not gone through attn.c_proj."
    if gives(scores, values):
        return "The scores are not scaled: divide them by the square root of the head size."
    if gives(scores / 8**0.5, values):
        return "You scale by the width of all heads, C. It is the head size, `k.size(-1)`."
    if t > 0 and gives(scores[..., :1], values[:, :1]):
        return "Your query sees the first token alone. No causal mask: all that is in the cache is past."
    if gives((scores / 2)[..., :-1], values[:, :-1]):
        return "A token attends to itself, too: its key and value join the cache before the scores."
    if gives(torch.zeros_like(scores), values * (t + 1)):
        return "Your weights of attention are all 1: softmax over the last dimension, the places in the cache."
    if t == 0:
        return _first_slip(attn, values, found)
    if gives(scores.flip(-1) / 2, values):
        return "Keys and values stand in different orders in your cache: the new ones go at the end of both."
    if gives(scores[..., -1:], values[:, -1:]):
        return f"Token {t + 1} sees itself alone: join its key and value to those in the cache, by torch.cat."
    return f"The output for token {t + 1} is wrong. Does its query meet the keys of all tokens so far?"


def _first_slip(attn, values: Tensor, found) -> str:
    """What the output of the first token, which attends to itself alone, says about how it was computed."""
    interleaved = attn.c_proj(values.flatten(1).T.reshape(1, -1))  # (1, C): a column per head, one after the other
    if isinstance(found, Tensor) and found.shape == interleaved.shape and torch.allclose(found, interleaved, atol=1e-5):
        return "The heads lie side by side: (heads, head size), not (head size, heads)."
    return "The first token attends to itself alone, so c_proj(value) is wanted. Which third of c_attn's output is it?"


class _Reciter:
    """Stands for a model: each next token follows from all before it. Counts its forward passes."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self, idx: Tensor) -> tuple[Tensor, None]:
        refuse(
            idx.ndim != 2, f"The model takes ids of the shape (1, T), not {tuple(idx.shape)}: `torch.tensor([ids])`."
        )
        self.passes += 1
        slow = "After 50 passes your text is still too short. Row t - 1 of the logits says what follows t tokens."
        refuse(self.passes > 50, slow)
        logits = torch.zeros(1, idx.size(1), 13)
        for i in range(idx.size(1)):
            logits[0, i, self.next(idx[0, : i + 1].tolist())] = 1
        return logits, None

    @staticmethod
    def next(text: list[int]) -> int:
        return (7 * text[-1] + sum(text) + len(text) ** 2) % 13

    def more(self, text: list[int], n: int) -> list[int]:
        """The next n tokens."""
        text, start = list(text), len(text)
        for _ in range(n):
            text.append(self.next(text))
        return text[start:]


def _whole(text: list[int]) -> list[int]:
    """What `propose` is given. Raises WrongError if it is not the text from its first token on."""
    whole = isinstance(text, list) and text[:3] == [1, 2, 3]
    refuse(not whole, "`propose` gets the whole text so far, prompt included, as a list.")
    return text


def exercise_8_4(speculate) -> str:
    """The text of greedy decoding, in as few passes as the drafts allow."""
    prompt, model, rows = [1, 2, 3], _Reciter(), "Row t - 1 of the logits says what follows t tokens."

    def wrong(text: list[int], right: int = 0) -> list[int]:
        """So many right draft tokens, a wrong one, and what the model would say behind that."""
        draft = model.more(text, right)
        draft.append((model.next(text + draft) + 1) % 13)
        return draft + model.more(text + draft, 2)

    for what, n, propose, passes, says in (
        ("without drafts", 4, lambda _: [], 4, rows),
        ("with wrong drafts", 4, wrong, 4, "A draft token that is not the model's choice gives way to that choice."),
        ("with two right drafts", 6, lambda text: model.more(text, 2), 2, "The last row gives a third, for nothing."),
        ("with two right drafts and a wrong one", 6, lambda text: wrong(text, 2), 2, "Behind a wrong one all is void."),
        ("with 15 right drafts", 4, lambda text: model.more(text, 15), 1, "n more tokens, no more."),
    ):
        model.passes, text = 0, list(prompt)
        try:
            found = speculate(model, text, n, lambda given, propose=propose: propose(_whole(given)))
        except IndexError:
            refuse(True, f"{what.capitalize()}, a row is asked for that the logits do not have. {rows}")
        refuse(found is None, NOTHING)
        refuse(
            not isinstance(found, tuple | list) or len(found) != 2, "Two things are wanted: `return text, n_passes`."
        )
        refuse(text != prompt, "Your function lengthens the prompt itself. Begin with a copy: `list(prompt)`.")
        written, counted = list(found[0]), found[1]
        wanted = prompt + model.more(prompt, n)
        refuse(written == wanted[3:], "The prompt belongs to what is returned: the prompt, then n more tokens.")
        expect(written, wanted, f"{n} tokens behind [1, 2, 3], {what}: {{wanted}}, not {{found}}. {says}")
        each = f"{n} tokens {what}: your model ran {n} times. One pass checks all drafts at once, and adds one more."
        refuse(model.passes == n > passes, each)
        expect(model.passes, passes, f"{n} tokens {what}: {{wanted}} passes do, your model ran {{found}} times. {says}")
        expect(counted, passes, f"You return {{found}} forward passes {what}, where the model ran {{wanted}} times.")
    return "Drafts change how many passes a text takes, and not a token of it."
