"""New tokens as text that can be shown at once: whole characters, and nothing of a stop string."""

import codecs
from collections.abc import Callable, Iterator, Sequence

from helpers.generate import Decoder


def stream_text(
    decoder: Decoder, token_bytes: Callable[[int], bytes], max_new_tokens: int, stop: Sequence[str] = ()
) -> Iterator[list[str]]:
    """What each new token adds to each text, as strings; ends when all texts have, or after max_new_tokens.

    token_bytes: the bytes of a token (`tokenizer.token_bytes`). A character of several tokens comes out whole, with
    the last of them. stop: strings that end a text and are no part of it; what may be the beginning of one is held
    back until that is decided. Raises ValueError for an empty stop string.
    """
    if not all(stop):
        raise ValueError("an empty stop string would stop at once: leave it out")
    streams, left = [_TextStream(stop) for _ in decoder.texts], max_new_tokens
    while left and decoder.running:
        new = decoder.step(most=left)
        for tokens in zip(*new.values(), strict=True):  # one for each text; several times where a draft was accepted
            left -= 1
            pieces = [""] * len(streams)
            for text, token in zip(new, tokens, strict=True):
                pieces[text] = streams[text].add(token_bytes(token), last=left == 0)
                if streams[text].ended:
                    decoder.end(text)
            yield pieces
            if not decoder.running:
                return


class _TextStream:
    """One text on its way out."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop, self.ended, self.held = stop, False, ""
        self.characters = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, new: bytes, last: bool) -> str:
        """What can be shown now that `new` is there."""
        self.held += self.characters.decode(new, last)
        ends = [self.held.index(s) for s in self.stop if s in self.held]
        if ends:
            self.ended = True
            return self.held[: min(ends)]
        begun = (n for s in self.stop for n in range(1, len(s)) if self.held.endswith(s[:n]))
        ready = len(self.held) - (0 if last else max(begun, default=0))
        out, self.held = self.held[:ready], self.held[ready:]
        return out
