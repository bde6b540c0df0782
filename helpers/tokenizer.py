"""Tokenizers: a text as a list of numbers, and back."""

import codecs
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import tiktoken

from helpers.base.errors import SettingError


class CharTokenizer:
    """Every distinct character of a text is a token, numbered in sorted order."""

    def __init__(self, text: str) -> None:
        self.symbols = sorted(set(text))
        self._id = {symbol: i for i, symbol in enumerate(self.symbols)}

    @property
    def n_vocab(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> list[int]:
        """Raises ValueError for a character that the text it was made from does not have."""
        try:
            return [self._id[c] for c in text]
        except KeyError as error:
            raise ValueError(
                f"the character {error.args[0]!r} does not occur in the corpus, so this model has no symbol for it"
            ) from None

    def token_bytes(self, i: int) -> bytes:
        """The bytes that token `i` stands for, in UTF-8."""
        return self.symbols[i].encode()

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.symbols[i] for i in ids)


class BPETokenizer:
    """GPT-2's byte-pair tokens; with `kept_ids`, a smaller vocabulary that merges bytes into those and no others.

    kept_ids: GPT-2's ids of the tokens to keep, in ascending order, the 256 single bytes and the parts of every other
    among them; so any text can be encoded, in smaller pieces where a token is missing. Special tokens in a text are
    text. Raises SettingError if a byte or a part is missing.
    """

    def __init__(self, encoding: tiktoken.Encoding, kept_ids: Sequence[int] | None = None) -> None:
        self.kept_ids = None if kept_ids is None else list(kept_ids)
        if kept_ids is not None:
            ranks = {encoding.decode_single_token_bytes(i): new for new, i in enumerate(kept_ids)}
            merges = BPETokenizer(encoding).ranks()
            parts = {part for token in ranks if len(token) > 1 for part in last_merge(token, merges)}
            if not parts | {bytes([b]) for b in range(256)} <= set(ranks):
                raise SettingError("this vocabulary lacks parts of its own tokens (an earlier version's?): train again")
            encoding = tiktoken.Encoding(
                "gpt2-kept", pat_str=encoding._pat_str, mergeable_ranks=ranks, special_tokens={}
            )
        self.encoding = encoding

    @property
    def n_vocab(self) -> int:
        return self.encoding.n_vocab

    def encode(self, text: str) -> list[int]:
        return self.encoding.encode(text, disallowed_special=())

    def token_bytes(self, i: int) -> bytes:
        """The bytes that token `i` stands for; a character beyond ASCII can need several tokens."""
        return self.encoding.decode_single_token_bytes(i)

    def decode(self, ids: Iterable[int]) -> str:
        """Never raises on ids of this vocabulary: bytes that are no whole character show as �."""
        return b"".join(self.token_bytes(i) for i in ids).decode("utf-8", errors="replace")

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text; a character of several tokens comes whole, with the last of them."""
        characters = codecs.getincrementaldecoder("utf-8")("replace")
        return [characters.decode(self.token_bytes(i), n == len(ids)) for n, i in enumerate(ids, 1)]

    def restricted_to(self, text: str) -> "BPETokenizer":
        """The same tokenizer with only the merges that `text` needs, and the 256 bytes; it splits `text` as before."""
        ranks = self.ranks()
        todo, kept = {self.token_bytes(i) for i in self.encode(text)}, {bytes([b]) for b in range(256)}
        while todo:
            token = todo.pop()
            if token not in kept:
                kept.add(token)
                todo.update(last_merge(token, ranks))
        return BPETokenizer(self.encoding, sorted(ranks[token] for token in kept))

    def ranks(self) -> dict[bytes, int]:
        """Every token's bytes and its id, which is also its turn: the lower is merged first. No special tokens."""
        special = {self.encoding.encode_single_token(name) for name in self.encoding.special_tokens_set}
        return {self.token_bytes(i): i for i in range(self.n_vocab) if i not in special}


def last_merge(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that byte-pair encoding joins last to make `token`, a token of two bytes or more.

    Raises ValueError where the vocabulary cannot make it.
    """
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        merges = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
        if not merges:
            raise ValueError(f"the vocabulary has no two tokens to make {token!r} of")
        i = min(merges)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]
